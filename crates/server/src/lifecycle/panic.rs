use std::backtrace::Backtrace;
use std::io::Write;
use std::panic::PanicHookInfo;

/// From now on a panic of any thread or task is logged and ends the process. A node that lost a part of itself (the task of a
/// Raft group, say) would go on to answer for it otherwise; a node that is gone is replaced by the others.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        report(info);
        std::process::abort();
    }));
}

fn report(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let message = info.payload_as_str().unwrap_or("(no text)");
    let place = info.location().map_or_else(String::new, ToString::to_string);
    let backtrace = Backtrace::force_capture();
    if tracing::enabled!(tracing::Level::ERROR) {
        // Not `message`, which the log calls its own text.
        tracing::error!(thread, place, panic = message, %backtrace, "panic: the process is aborted");
    } else {
        // There is nowhere left to report a failure to.
        let _ =
            writeln!(std::io::stderr(), "panic in {thread} at {place}: {message}; the process is aborted\n{backtrace}");
    }
}
