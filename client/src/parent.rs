//! Parent: what a client learns from the one above it and hands on, through `ZCACHE_PARENT`. Inside an observed
//! compile the observer keeps it out of the compiler's sight and hands it over when asked.

use std::ffi::{CStr, OsStr, OsString, c_char};
use std::os::unix::ffi::OsStrExt;

use nix::libc;
use zcache_proto::v1::Parent;

/// The variable: `build.invocation.depth`.
pub const VARIABLE: &str = "ZCACHE_PARENT";

/// Asks an observer in this process to leave this client alone, and where this client stands. To be called first.
pub fn find() -> Option<Parent> {
    let text = match exempted() {
        Some(text) => text,
        None => std::env::var(VARIABLE).ok(),
    };
    parse(&text?)
}

/// The value for the children of an invocation.
pub fn value(parent: &Parent) -> OsString {
    format!("{}.{}.{}", parent.build, parent.invocation, parent.depth).into()
}

fn parse(text: &str) -> Option<Parent> {
    let mut numbers = text.splitn(3, '.');
    Some(Parent {
        build: numbers.next()?.parse().ok()?,
        invocation: numbers.next()?.parse().ok()?,
        depth: numbers.next()?.parse().ok()?,
    })
}

/// The guide's variable, as the observer in this process keeps it. To be called after [`find`].
pub fn guide() -> Option<OsString> {
    ask(c"zcache_observer_guide").flatten().map(|text| OsStr::from_bytes(text.to_bytes()).to_owned())
}

/// What the observer says; none where there is none in this process.
fn exempted() -> Option<Option<String>> {
    let answer = ask(c"zcache_observer_exempt")?;
    Some(answer.and_then(|text| text.to_str().ok().map(str::to_owned)))
}

/// The observer's answer to one of its questions; none where there is none in this process.
fn ask(question: &CStr) -> Option<Option<&'static CStr>> {
    // SAFETY: the name is a C string; a null answer is handled.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, question.as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: only our observer exports these names, and with this signature.
    let answer: extern "C" fn() -> *const c_char = unsafe { std::mem::transmute(symbol) };
    let text = answer();
    // SAFETY: the observer returns a C string that lives as long as the process.
    Some((!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_comes_back() {
        let parent = Parent { build: 7, invocation: 8, depth: 9 };
        assert_eq!(parse(value(&parent).to_str().unwrap()), Some(parent));
        for bad in ["", "1", "1.2", "1.2.x", "1.2.-1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
