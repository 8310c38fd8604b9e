//! Runs the generator on specifications in a directory of the test's own.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What tests return.
pub(crate) type TestResult = Result<(), Box<dyn Error>>;

/// A specification with one of everything.
pub(crate) const SMALL: &str = r#"<amqp major="0" minor="9">
  <constant name="frame-end" value="206"/>
  <constant name="not-found" value="404" class="soft-error"/>
  <domain name="no-wait" type="bit"/>
  <domain name="name" type="shortstr"/>
  <class name="basic" handler="channel" index="60">
    <field name="type" domain="name"/>
    <method name="get" synchronous="1" index="70">
      <doc>Asks for one message.</doc>
      <chassis name="server" implement="MUST"/>
      <response name="get-ok"/>
      <field name="reserved-1" type="short" reserved="1"/>
      <field name="queue" domain="name"/>
      <field name="no-wait" domain="no-wait"/>
    </method>
    <method name="get-ok" content="1" index="71">
      <chassis name="client" implement="MAY"/>
    </method>
    <method name="ack" index="80">
      <chassis name="client" implement="MUST"/>
      <chassis name="server" implement="MUST"/>
    </method>
  </class>
</amqp>
"#;

/// How a run ended.
pub(crate) struct Run {
    /// The exit code.
    pub(crate) code: Option<i32>,
    /// The standard output.
    pub(crate) stdout: String,
    /// The standard error.
    pub(crate) stderr: String,
}

/// Runs the generator.
pub(crate) fn run(arguments: &[&str]) -> Result<Run, Box<dyn Error>> {
    run_command(command().args(arguments))
}

/// The generator, to be run with [`run_command`].
pub(crate) fn command() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lepus-codegen"))
}

/// Runs the generator as prepared.
pub(crate) fn run_command(command: &mut Command) -> Result<Run, Box<dyn Error>> {
    let output = command.output()?;
    Ok(Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// A fresh directory with a specification, and one for the output that does not exist yet.
pub(crate) struct Scratch {
    /// The specification file.
    pub(crate) spec: PathBuf,
    /// The output directory.
    pub(crate) directory: PathBuf,
}

impl Scratch {
    /// A directory of this name, with the specification `text`.
    pub(crate) fn new(name: &str, text: &str) -> Result<Self, Box<dyn Error>> {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        fs::create_dir_all(&root)?;
        let scratch = Self { spec: root.join("spec.xml"), directory: root.join("generated") };
        fs::write(&scratch.spec, text)?;
        Ok(scratch)
    }

    /// `lepus-codegen NAME SPEC OUT_DIR`.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = command();
        command.arg(name).arg(&self.spec).arg(&self.directory);
        command
    }

    /// Runs it.
    pub(crate) fn run(&self, name: &str) -> Result<Run, Box<dyn Error>> {
        run_command(&mut self.command(name))
    }
}
