//! Messages of the socket: what decodes is an invocation or is refused, and what it asks is a command or none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use zcache_daemon::compilers::parse;
use zcache_daemon::invocation::Invocation;
use zcache_fuzz::spelled;
use zcache_proto::v1;

fuzz_target!(|data: &[u8]| {
    ask(&spelled(data));
    if let Ok(message) = v1::Invocation::decode(data) {
        assert_eq!(v1::Invocation::decode(message.encode_to_vec().as_slice()).as_ref(), Ok(&message));
        if let Ok(invocation) = Invocation::try_from(message) {
            let _ = parse(&invocation, |_| Some(data.to_vec()));
            invocation.env.digest(|_, value| Some(value.into()));
        }
    }
    let _ = v1::Outcome::decode(data);
    // What the client takes from a daemon, and the daemon from its index.
    let _ = v1::LookupEvent::decode(data);
    let _ = v1::StatusReport::decode(data);
});

/// A message of every field, as a client would send it.
fn ask(text: &[u8]) {
    let mut pieces = text.split(|&b| b == 0).map(<[u8]>::to_vec);
    let mut list = || pieces.next().unwrap_or_default().split(|&b| b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let (argv, environment, mut paths) = (list(), list(), list());
    let (program, cwd, stdin) = (paths.pop().unwrap_or_default(), paths.pop().unwrap_or_default(), paths.pop());
    let message =
        v1::Invocation { argv, environment, program, cwd, stdin, umask: u32::MAX, ..v1::Invocation::default() };
    let sent = message.encode_to_vec();
    let received = v1::Invocation::decode(sent.as_slice()).expect("what was encoded");
    assert_eq!(received, message);
    if let Ok(invocation) = Invocation::try_from(received) {
        // A directory that was removed has no path.
        assert!(invocation.cwd.is_empty() || invocation.cwd.starts_with(b"/"));
        assert!(invocation.program.starts_with(b"/") && invocation.umask <= 0o777);
        let _ = parse(&invocation, |_| Some(text.to_vec()));
    }
}
