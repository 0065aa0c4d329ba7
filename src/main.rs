//! The `snow-ort` command.

fn main() -> std::process::ExitCode {
    snow_ort::cli::main()
}
