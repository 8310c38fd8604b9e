//! Generates lepus' method structs from the AMQP 0-9-1 specification file.

mod emit;
mod error;
mod facts;
mod format;
mod names;
mod output;
mod read;
mod spec;

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::error::Error;
use self::output::Files;

const USAGE: &str = "\
usage: lepus-codegen [generate [SPEC.xml [OUT_DIR]]]   write the generated files
       lepus-codegen check [SPEC.xml [OUT_DIR]]        fail unless they are up to date
       lepus-codegen facts [SPEC.xml]                  print the specification's facts, sorted

SPEC.xml is codegen/amqp0-9-1.xml and OUT_DIR is src/codec/generated unless given.
";

/// Where the specification is in the repository.
const SPEC: &str = "codegen/amqp0-9-1.xml";

/// Where the generated files are in the repository.
const DIRECTORY: &str = "src/codec/generated";

/// What the command line asks for.
enum Command {
    Generate { spec: PathBuf, directory: PathBuf },
    Check { spec: PathBuf, directory: PathBuf },
    Facts { spec: PathBuf },
    Help,
}

fn main() -> ExitCode {
    let Some(command) = command(env::args_os().skip(1).collect()) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The command, or `None` if the arguments make none.
fn command(arguments: Vec<OsString>) -> Option<Command> {
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_else(|| "generate".into());
    let mut path = |default: &str| arguments.next().map_or_else(|| repository().join(default), PathBuf::from);
    let command = match name.to_str()? {
        "generate" => Command::Generate { spec: path(SPEC), directory: path(DIRECTORY) },
        "check" => Command::Check { spec: path(SPEC), directory: path(DIRECTORY) },
        "facts" => Command::Facts { spec: path(SPEC) },
        "help" | "--help" | "-h" => Command::Help,
        _ => return None,
    };
    arguments.next().is_none().then_some(command)
}

/// The root of the repository, which holds this package.
pub(crate) fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Generate { spec, directory } => output::write(&directory, &generate(&spec)?),
        Command::Check { spec, directory } => output::check(&directory, &generate(&spec)?),
        Command::Facts { spec } => print(&facts::facts(&read::read(&spec)?)),
        Command::Help => print(USAGE),
    }
}

/// All files, rendered and formatted before any of them is written.
fn generate(spec: &Path) -> Result<Files, Error> {
    let source = spec.file_name().unwrap_or_default().to_string_lossy();
    let files = emit::files(&read::read(spec)?, &source);
    files
        .into_iter()
        .map(|(name, code)| {
            let code = format::format(&name, &code)?;
            Ok((name, code))
        })
        .collect()
}

fn print(text: &str) -> Result<(), Error> {
    io::stdout().write_all(text.as_bytes()).map_err(Error::Output)
}
