//! `completions`: scripts for shells, made from the same definitions as the help.
//!
//! The scripts of clap know commands and options. What only the running kernel knows (events, tracers, instances, options, clocks) is
//! asked for at the moment of completion: a few lines behind clap's script call `tracecmd complete KIND`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use clap_complete::Shell;
use tracefs::TraceFs;

use crate::cli::{self, Ctx};

/// The options of `completions`.
pub fn command() -> Command {
    Command::new("completions")
        .arg(
            Arg::new("shell")
                .value_name("SHELL")
                .required(true)
                .value_parser(["bash", "zsh", "fish"])
                .help("Shell to write the script for"),
        )
        .after_help(
            "Examples:\n  \
             tracecmd completions bash > /usr/share/bash-completion/completions/tracecmd\n  \
             tracecmd completions zsh > /usr/share/zsh/site-functions/_tracecmd\n  \
             tracecmd completions fish > /usr/share/fish/vendor_completions.d/tracecmd.fish",
        )
}

/// Writes the script to stdout.
pub fn run(cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
    let name = m.get_one::<String>("shell").map_or("bash", String::as_str);
    let (shell, more) = match name {
        "zsh" => (Shell::Zsh, zsh(&cx.program)),
        "fish" => (Shell::Fish, fish(&cx.program)),
        _ => (Shell::Bash, bash(&cx.program)),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::root(&cx.program), cx.program.as_str(), &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)?;
    out.write_all(more.as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Commands that configure the kernel.
const LIVE: &[&str] = &["record", "start", "set", "stream", "profile"];
/// Options whose values the kernel knows: option, kind, commands in which it means that.
const DYNAMIC: &[(&str, &str, &[&str])] = &[
    ("-e", "events", LIVE),
    ("-p", "tracers", LIVE),
    ("-O", "options", LIVE),
    ("-C", "clocks", LIVE),
    ("-l", "functions", LIVE),
    ("-n", "functions", LIVE),
    ("-g", "functions", LIVE),
    ("--module", "modules", LIVE),
    ("-B", "instances", LIVE),
    ("-B", "instances", &["extract", "show", "stat", "stop", "restart", "reset", "clear", "snapshot", "sqlhist"]),
    ("--compression", "compressions", &["record", "extract", "convert"]),
    ("--hist", "events", &["show"]),
    ("--trigger", "events", &["show"]),
    ("-e", "events", &["list"]),
    ("-f", "functions", &["list"]),
    ("-o", "options", &["list"]),
    ("-k", "dynamic", &["reset"]),
];

fn function_name(program: &str) -> String {
    program.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// The `case` branches of bash and zsh: which command and option asks the kernel for what.
fn live_cases() -> String {
    DYNAMIC
        .iter()
        .map(|(option, kind, commands)| {
            let pattern: Vec<_> = commands.iter().map(|c| format!("{c}\\ {option}")).collect();
            format!("        {}) kind={kind};;\n", pattern.join("|"))
        })
        .collect()
}

fn bash(program: &str) -> String {
    let f = function_name(program);
    let cases = live_cases();
    format!(
        "\n# What the running kernel knows.\n\
         __{f}_live() {{\n    local cur=\"${{COMP_WORDS[COMP_CWORD]}}\" prev=\"${{COMP_WORDS[COMP_CWORD-1]}}\" kind=\n    \
         # The colon of system:event splits words.\n    \
         if [ \"$cur\" = : ]; then cur=\"$prev:\"; prev=\"${{COMP_WORDS[COMP_CWORD-2]}}\"\n    \
         elif [ \"$prev\" = : ]; then cur=\"${{COMP_WORDS[COMP_CWORD-2]}}:$cur\"; prev=\"${{COMP_WORDS[COMP_CWORD-3]}}\"; fi\n    \
         case \"${{COMP_WORDS[1]}} $prev\" in\n{cases}        *) _{f} \"$@\"; return;;\n    esac\n    \
         COMPREPLY=($(compgen -W \"$({program} complete $kind \"$cur\" 2>/dev/null)\" -- \"$cur\"))\n    \
         case \"$cur\" in *:*) COMPREPLY=(\"${{COMPREPLY[@]#${{cur%:*}}:}}\");; esac\n}}\n\
         complete -F __{f}_live -o nosort -o bashdefault -o default {program} 2>/dev/null || complete -F __{f}_live {program}\n"
    )
}

fn zsh(program: &str) -> String {
    let f = function_name(program);
    let cases = live_cases();
    format!(
        "\n# What the running kernel knows.\n\
         __{f}_live() {{\n    local kind=\n    case \"${{words[2]}} ${{words[CURRENT-1]}}\" in\n{cases}        *) _{f} \"$@\"; return;;\n    esac\n    \
         local -a found=(${{(f)\"$({program} complete $kind \"${{words[CURRENT]}}\" 2>/dev/null)\"}})\n    compadd -a found\n}}\n\
         compdef __{f}_live {program}\n"
    )
}

fn fish(program: &str) -> String {
    let mut out = String::from("\n# What the running kernel knows.\n");
    for (option, kind, commands) in DYNAMIC {
        let name = match option.strip_prefix("--") {
            Some(long) => format!("-l {long}"),
            None => format!("-s {}", option.trim_start_matches('-')),
        };
        out += &format!(
            "complete -c {program} -n '__fish_seen_subcommand_from {}' {name} -x -a '({program} complete {kind} (commandline -ct) 2>/dev/null)'\n",
            commands.join(" ")
        );
    }
    out
}

/// The hidden `complete KIND [PREFIX]`.
pub mod complete {
    use super::*;

    /// At most this many lines: a shell that gets 50,000 function names is of no help.
    const MOST: usize = 2000;

    /// The options of `complete`.
    pub fn command() -> Command {
        Command::new("complete")
            .hide(true)
            .arg(Arg::new("kind").required(true).value_parser([
                "events",
                "tracers",
                "instances",
                "options",
                "clocks",
                "functions",
                "modules",
                "compressions",
                "dynamic",
            ]))
            .arg(Arg::new("prefix").default_value("").allow_hyphen_values(true))
    }

    /// Prints what begins with the prefix, a line each. A kernel that cannot be asked knows nothing.
    pub fn run(_cx: &Ctx, m: &ArgMatches) -> anyhow::Result<ExitCode> {
        let kind = m.get_one::<String>("kind").map_or("", String::as_str);
        let prefix = m.get_one::<String>("prefix").map_or("", String::as_str);
        let found = match (kind, TraceFs::find_mounted()) {
            ("compressions", _) => ["any", "none", "zlib", "zstd"].map(str::to_owned).into(),
            ("dynamic", _) => {
                let kinds = tracefs::DynEventKind::ALL.iter().map(|k| k.name().to_owned());
                kinds.chain(["all".to_owned()]).collect()
            }
            ("modules", _) => {
                let text = std::fs::read_to_string("/proc/modules").unwrap_or_default();
                text.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect()
            }
            (_, Ok(Some(root))) => words(&root, kind).unwrap_or_default(),
            _ => Vec::new(),
        };
        let mut out = std::io::stdout().lock();
        for word in found.iter().filter(|w| w.starts_with(prefix)).take(MOST) {
            writeln!(out, "{word}")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Everything of a kind.
    pub fn words(root: &TraceFs, kind: &str) -> tracefs::Result<Vec<String>> {
        let top = root.top();
        Ok(match kind {
            "events" => {
                let mut list = top.event_systems()?;
                list.push("all".into());
                list.extend(top.available_events()?.into_iter().map(|(s, e)| format!("{s}:{e}")));
                list.sort();
                list
            }
            "tracers" => top.tracers()?,
            "instances" => root.instances()?,
            "clocks" => top.clocks()?,
            "functions" => {
                let list = top.available_functions()?;
                list.into_iter().map(|l| l.split(' ').next().unwrap_or("").to_owned()).collect()
            }
            "options" => top.options()?.into_iter().flat_map(|(o, _)| [format!("no{o}"), o]).collect(),
            _ => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_ask_the_kernel() {
        for text in [bash("tracecmd"), zsh("tracecmd"), fish("tracecmd")] {
            assert!(text.contains("tracecmd complete"), "{text}");
        }
        assert!(bash("trace-cmd").contains("__trace_cmd_live"));
    }

    #[test]
    fn bash_completes() {
        // Runs the script for `record -e sch` with a stand-in for the program.
        let script = format!(
            "tracecmd() {{ [ \"$1 $2\" = 'complete events' ] && echo sched sched:sched_switch irq; }}\n{}\n\
             _tracecmd() {{ COMPREPLY=(static); }}\n\
             COMP_WORDS=(tracecmd record -e sch); COMP_CWORD=3; __tracecmd_live; echo \"${{COMPREPLY[@]}}\"\n\
             COMP_WORDS=(tracecmd record -e sched : sched_s); COMP_CWORD=5; __tracecmd_live; echo \"${{COMPREPLY[@]}}\"\n\
             COMP_WORDS=(tracecmd rec); COMP_CWORD=1; __tracecmd_live; echo \"${{COMPREPLY[@]}}\"\n",
            bash("tracecmd")
        );
        let Ok(out) = std::process::Command::new("bash").arg("-c").arg(&script).output() else { return };
        assert_eq!(
            String::from_utf8_lossy(&out.stdout),
            "sched sched:sched_switch\nsched_switch\nstatic\n",
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    #[test]
    fn words_of_a_kernel() {
        let t = tempfile::tempdir().unwrap();
        let top = t.path();
        for d in ["events/sched/sched_switch", "events/irq/x", "instances/one"] {
            std::fs::create_dir_all(top.join(d)).unwrap();
        }
        for f in ["events/sched/enable", "events/irq/enable"] {
            std::fs::write(top.join(f), "0\n").unwrap();
        }
        std::fs::write(top.join("available_events"), "sched:sched_switch\nirq:x\n").unwrap();
        std::fs::write(top.join("available_tracers"), "function nop\n").unwrap();
        let root = TraceFs::at(top);
        let words = |kind| complete::words(&root, kind).unwrap();
        assert_eq!(words("events"), ["all", "irq", "irq:x", "sched", "sched:sched_switch"]);
        assert_eq!(words("tracers"), ["function", "nop"]);
        assert_eq!(words("instances"), ["one"]);
    }
}
