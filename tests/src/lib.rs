//! Helpers of the end-to-end tests: our binary, the reference, guests with real kernels, skips that are counted.
//!
//! The tests themselves lie in `tests/tests/`, one file per kind. Those with a list that is only known at run time
//! (fixtures, kernels, scenarios) build their list with `libtest-mimic`; a test that cannot run on this machine appears
//! as *ignored* there, with the reason on standard error (see [`skip`]).

pub mod compare;
pub mod damage;
pub mod generate;
pub mod guest;
pub mod limited;
pub mod programs;
pub mod remote;
pub mod seeds;
pub mod skip;
pub mod target_seeds;
pub mod targets;
