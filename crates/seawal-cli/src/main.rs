//! The `seawal` program.

fn main() -> std::process::ExitCode {
    seawal_cli::main()
}
