//! Fixed workloads, whose instructions `.ci/instructions` counts. On its own it only runs them.
#![allow(clippy::expect_used, reason = "what cannot run is to stop")]

#[path = "../tests/guard/workload.rs"]
mod workload;

use workload::{WORKLOADS, Workload};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (name, times) = (arguments.next(), arguments.next());
    let times = times.map_or(10, |times| times.parse().expect("a number of operations"));
    for workload in WORKLOADS.iter().filter(|workload| name.as_ref().is_none_or(|name| name == *workload)) {
        Workload::new(workload).expect("a workload").run(times);
    }
}
