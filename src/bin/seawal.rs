//! The `seawal` program.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    seawal::cli::main()
}
