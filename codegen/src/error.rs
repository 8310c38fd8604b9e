//! What can go wrong.

use std::io;
use std::path::{Path, PathBuf};

/// Why nothing was generated, or why the check failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The specification is wrong.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Spec {
        /// The specification file.
        path: PathBuf,
        /// The line, from 1.
        line: u32,
        /// The column, from 1.
        column: u32,
        /// What is wrong there.
        message: String,
    },
    /// `rustfmt` could not be run.
    #[error("cannot run rustfmt, which formats what is generated (`rustup component add rustfmt`): {0}")]
    NoRustfmt(io::Error),
    /// `rustfmt` refused what was generated.
    #[error("rustfmt does not accept the generated {file}:\n{output}")]
    Rustfmt {
        /// The generated file.
        file: String,
        /// What rustfmt says.
        output: String,
    },
    /// What is on disk is not what would be generated.
    #[error("not what the generator makes:\n{}\nrun `cargo run -p lepus-codegen`", .0.join("\n"))]
    Differs(Vec<String>),
    /// The standard output could not be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
}

impl Error {
    /// Puts the file's name to what the system says.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_path_buf(), source }
    }
}
