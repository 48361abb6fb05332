//! `tracecmd`: records, reports and splits Linux kernel traces with the command line of trace-cmd.

use std::process::ExitCode;

fn main() -> ExitCode {
    tracecmd::sys::keep_name_services_inside();
    let words: Vec<_> = std::env::args_os().collect();
    let program = tracecmd::cli::program_name(words.first());
    tracecmd::log::init(&program);
    match tracecmd::cli::run(&program, words.get(1..).unwrap_or_default()) {
        Ok(code) => code,
        // Whoever read our output has gone: nothing is left to say.
        Err(error) if tracecmd::cli::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: what failed, then each cause.
            let _ = std::io::Write::write_fmt(
                &mut tracecmd::output::guard::stderr(),
                format_args!("{program}: {error:#}\n"),
            );
            ExitCode::FAILURE
        }
    }
}
