//! Plugin options: what `report -O` sets and `options` lists.

use crate::decoder::{PluginOption, PrintOptions};

/// One option of a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionInfo {
    /// The name that stands before `:` on the command line.
    pub plugin: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub description: &'static str,
    /// Its value when nothing is said.
    pub default: bool,
}

/// All options, in the order in which they are listed.
pub const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        plugin: "ftrace",
        name: "parent",
        description: "Function events: show the caller too",
        default: false,
    },
    OptionInfo {
        plugin: "ftrace",
        name: "indent",
        description: "Function events: indent by nesting, as far as callers tell",
        default: true,
    },
    OptionInfo {
        plugin: "ftrace",
        name: "offset",
        description: "Function events: show offsets into functions",
        default: false,
    },
    OptionInfo {
        plugin: "fgraph",
        name: "tailprint",
        description: "Function graph: show the function's name at its end",
        default: false,
    },
    OptionInfo {
        plugin: "fgraph",
        name: "depth",
        description: "Function graph: show the nesting depth",
        default: false,
    },
    OptionInfo {
        plugin: "fgraph",
        name: "retval-skip",
        description: "Function graph: leave out return values",
        default: false,
    },
    OptionInfo {
        plugin: "fgraph",
        name: "retval-dec",
        description: "Function graph: return values in decimal",
        default: false,
    },
    OptionInfo {
        plugin: "fgraph",
        name: "retval-hex",
        description: "Function graph: return values in hex",
        default: false,
    },
];

/// The value of an option after all `-O`.
///
/// Without a value an option is turned over. Of several settings under the same name the last counts; one with the plugin's name
/// comes before one without. Any value but `0`, `1`, `false` and `true` is ignored, as is any name that does not exist.
pub fn value(options: &PrintOptions, plugin: &str, name: &str) -> bool {
    let default = OPTIONS.iter().any(|o| o.plugin == plugin && o.name == name && o.default);
    let last = |want: Option<&str>| {
        let same = |o: &&PluginOption| o.name == name && o.plugin.as_deref() == want;
        options.plugin_options.iter().rev().find(same)
    };
    [last(Some(plugin)), last(None)].into_iter().flatten().fold(default, |now, o| match o.value.as_deref() {
        None => !now,
        Some("1" | "true") => true,
        Some("0" | "false") => false,
        Some(_) => now,
    })
}

/// Options of function events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ftrace {
    pub(crate) parent: bool,
    pub(crate) indent: bool,
    pub(crate) offset: bool,
}

impl Ftrace {
    pub(crate) fn new(options: &PrintOptions) -> Self {
        let get = |name| value(options, "ftrace", name);
        Ftrace { parent: get("parent"), indent: get("indent"), offset: get("offset") }
    }
}

/// Options of function_graph events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fgraph {
    pub(crate) tailprint: bool,
    pub(crate) depth: bool,
    pub(crate) retval_skip: bool,
    pub(crate) retval_dec: bool,
    pub(crate) retval_hex: bool,
}

impl Fgraph {
    pub(crate) fn new(options: &PrintOptions) -> Self {
        let get = |name| value(options, "fgraph", name);
        Fgraph {
            tailprint: get("tailprint"),
            depth: get("depth"),
            retval_skip: get("retval-skip"),
            retval_dec: get("retval-dec"),
            retval_hex: get("retval-hex"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_setting() {
        // The left side as on the command line; seen with the reference.
        for (args, option, want) in [
            ("", "parent", false),
            ("", "indent", true),
            ("parent", "parent", true),
            ("parent parent", "parent", true),
            ("parent=1 parent", "parent", true),
            ("parent=1 parent=0", "parent", false),
            ("parent=0 parent=1", "parent", true),
            ("parent=True", "parent", false),
            ("parent=1 parent=yes", "parent", false),
            ("parent ftrace:parent", "parent", false),
            ("ftrace:parent parent=0", "parent", false),
            ("parent=0 ftrace:parent", "parent", false),
            ("parent=1 ftrace:parent", "parent", true),
            ("ftrace:parent=1 parent", "parent", false),
            ("indent=0 indent", "indent", false),
            ("indent ftrace:indent=1", "indent", false),
            ("ftrace:indent indent", "indent", true),
            ("fgraph:parent", "parent", false),
            ("parent=1 ftrace:parent=yes", "parent", true),
        ] {
            let plugin_options = args
                .split_whitespace()
                .map(|a| {
                    let (name, value) = a.split_once('=').map_or((a, None), |(n, v)| (n, Some(v.to_owned())));
                    let (plugin, name) = name.split_once(':').map_or((None, name), |(p, n)| (Some(p.to_owned()), n));
                    PluginOption { plugin, name: name.to_owned(), value }
                })
                .collect();
            let options = PrintOptions { plugin_options, ..PrintOptions::default() };
            assert_eq!(value(&options, "ftrace", option), want, "{args}");
        }
    }
}
