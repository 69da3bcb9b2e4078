//! Status: gets the report, from the daemon or of a store at rest, and prints it. What it looks like is `report`'s.

use zcache_client::session::{SessionError, check_place};
use zcache_client::shim::is_disabled;
use zcache_client::trouble::{Trouble, unasked};
use zcache_daemon::config::Config;
use zcache_daemon::status::at_rest;
use zcache_proto::endpoint::Endpoint;
use zcache_proto::v1::{self, StatusReport};

use crate::daemon::{ANSWER, config, endpoint, explain, own_endpoint, running};
use crate::failure::Failure;
use crate::holder::Holder;
use crate::report;
use crate::sccache;
use crate::sccache_settings;
use crate::settings::unheard;
use crate::store;
use crate::text::{self, count};

/// How the report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// For scripts.
    Json,
    /// For scripts that know sccache.
    Sccache,
}

/// `zcache status`: exits with success whatever state things are in, for telling which is its purpose.
pub fn show(form: Form) -> Result<(), Failure> {
    let config = config()?;
    let endpoint = endpoint();
    let Seen { mut report, absence, mut notes } = look(&config, &endpoint);
    let own = own_endpoint();
    let noted = Trouble::find(&own).map(|trouble| explain(trouble, &own));
    let is_missed = noted.is_some() || report.daemon.is_none();
    notes.extend(noted.filter(|noted| !notes.contains(noted)));
    let unasked = unasked(&own);
    if is_missed && unasked > 0 {
        notes.push(format!("{} ran without it", count(unasked, "compile", "compiles")));
    }
    if own != endpoint {
        // It is of no use to clients that have no place for the way there.
        notes.push(match check_place(&own) {
            Ok(()) => format!("the store is in use by this daemon: clients of {} are led to it", own.socket.display()),
            Err(error) => error.to_string(),
        });
    }
    if is_disabled() {
        notes.push("ZCACHE_DISABLE is set: compilers run as if zcache were not there".to_owned());
    }
    notes.extend(unheard(&report, &config).into_iter().map(|(_, remark)| remark));
    notes.extend(sccache_settings::remark(std::env::vars_os()));
    if form == Form::Text {
        return text::print(&report::render(&report, absence, &notes));
    }
    notes.iter().for_each(|note| text::note(note));
    report.totals.get_or_insert_default();
    let json = match form {
        Form::Sccache => serde_json::to_string(&sccache::server_info(&report)),
        _ => serde_json::to_string_pretty(&report),
    };
    text::print(&format!("{}\n", json.map_err(|error| Failure::new(error.to_string()))?))
}

/// A report and how it came about.
struct Seen {
    /// Without totals where they cannot be known.
    report: StatusReport,
    /// What it means that no daemon answered.
    absence: &'static str,
    notes: Vec<String>,
}

fn look(config: &Config, endpoint: &Endpoint) -> Seen {
    let asked = running(endpoint)
        .and_then(|mut session| session.ask(ANSWER, async |client| client.status(v1::StatusRequest {}).await));
    let (absence, mut notes) = match asked {
        Ok(report) => return Seen { report, absence: "", notes: Vec::new() },
        // Why none could be started is worth knowing.
        Err(SessionError::Absent) => {
            ("not running", Vec::from_iter(check_place(endpoint).err().map(|e| e.to_string())))
        }
        Err(error) => ("out of reach", vec![error.to_string()]),
    };
    // A daemon that has this socket's lock has the store too; that it does not answer has been said.
    let is_silent = Holder::of(&endpoint.lock()) != Holder::Nobody;
    let report = at_rest(config).unwrap_or_else(|error| {
        if !is_silent {
            notes.push(store::explain(&error, &config.dir).to_string());
        }
        StatusReport { cache: Some(store::look(&config.dir, config.max_size)), ..StatusReport::default() }
    });
    Seen { report, absence, notes }
}
