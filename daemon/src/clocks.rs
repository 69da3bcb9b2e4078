//! Clocks: whether a reading of the clock may show in a result. Who asked tells, and for what; the time itself never
//! does. Pure.

use zcache_proto::trace;

use crate::compilers::Family;
use crate::compilers::rustc::is_rustc;
use crate::compilers::toolchain::is_terminal_library;
use crate::images::Image;
use crate::observation::Record;

/// Whether the time that `record` says was read may show in the result. `own`: the code that asked is the toolchain's.
pub fn tells_time(record: &Record<'_>, image: Option<&Image>, own: bool, family: &dyn Family) -> bool {
    // Who asks for a date writes it down: `__TIMESTAMP__`, however it is spelled, or an assembler's listing.
    let Some(image) = image.filter(|_| record.value != trace::LOCAL) else { return true };
    if own && family.is_compiler(&image.program) {
        // A random seed is no date.
        let asks = image.module_at(record.caller);
        return record.value == trace::TIME && !asks.is_some_and(|module| is_terminal_library(&module.path));
    }
    !own && !is_tool_of(image, record)
}

/// The linker and its like ask for the time, and it shows in nothing they make; what they load for the project may.
fn is_tool_of(image: &Image, record: &Record<'_>) -> bool {
    image.is_tool && !is_rustc(&image.program) && image.module_at(record.caller).is_some()
}
