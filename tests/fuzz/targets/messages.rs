//! Messages of the socket: what decodes is an invocation or is refused, and what it asks is a command or none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use zcache_daemon::compilers::parse;
use zcache_daemon::distill::distill;
use zcache_daemon::invocation::Invocation;
use zcache_daemon::observation::records;
use zcache_fuzz::{command, invocation};
use zcache_proto::v1;

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = v1::Invocation::decode(data) {
        assert_eq!(v1::Invocation::decode(message.encode_to_vec().as_slice()).as_ref(), Ok(&message));
        if let Ok(invocation) = Invocation::try_from(message) {
            let _ = parse(&invocation, |_| Some(data.to_vec()));
            invocation.env.digest();
        }
    }
    if let Ok(outcome) = v1::Outcome::decode(data)
        && let Ok(records) = records(&outcome.trace)
    {
        let invocation = invocation(data.len() as u8);
        distill(&records, &*command(&invocation).family, &invocation);
    }
    // What the client takes from a daemon, and the daemon from its index.
    let _ = v1::LookupEvent::decode(data);
    let _ = v1::StatusReport::decode(data);
});
