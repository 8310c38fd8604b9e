//! A RabbitMQ node of the tests' own, from the machine's `rabbitmq-server`.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use super::answers;

/// How long a node may take to start.
const START: Duration = Duration::from_secs(90);

/// Debian keeps the programs themselves here: those on its PATH change to the user `rabbitmq` first.
const DEBIAN: &str = "/usr/lib/rabbitmq/bin";

/// Runs the node and waits for the end of its own standard input, which comes with the end of the test
/// process, however that ends. Then it stops the node and removes its folder.
const KEEPER: &str = r#"
trap '' INT HUP
"$1" & node=$!
cat >/dev/null
kill "$node"
wait "$node"
epmd -kill >/dev/null
rm -rf "$2"
"#;

/// A running node; it stops after this is dropped, or the process has ended.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where it listens.
    pub(crate) url: String,
    programs: PathBuf,
    environment: Vec<(&'static str, String)>,
    /// Lives until its standard input, which this process holds, is closed.
    keeper: Child,
}

impl Node {
    /// Starts a node on a free port, with a data folder of its own.
    pub(crate) fn start() -> Result<Self, String> {
        let programs = programs().ok_or("no `rabbitmq-server` is installed")?;
        let [port, distribution, epmd] = free_ports();
        let folder = env::temp_dir().join(format!("lepus-node-{}-{port}", process::id()));
        let inside = |name: &str| folder.join(name).display().to_string();
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        fs::write(folder.join("rabbitmq.conf"), format!("listeners.tcp.1 = 127.0.0.1:{port}\n"))
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let log = inside("node.log");
        let environment = vec![
            // for the cookie
            ("HOME", inside("")),
            ("ERL_EPMD_PORT", epmd.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_NODENAME", format!("lepus-{port}@localhost")),
            ("RABBITMQ_DIST_PORT", distribution.to_string()),
            ("RABBITMQ_MNESIA_BASE", inside("data")),
            ("RABBITMQ_LOG_BASE", inside("log")),
            ("RABBITMQ_LOGS", "-".into()),
            ("RABBITMQ_CONFIG_FILE", inside("rabbitmq")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", inside("advanced.config")),
            ("RABBITMQ_CONF_ENV_FILE", inside("rabbitmq-env.conf")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", inside("plugins")),
            ("RABBITMQ_PID_FILE", inside("pid")),
        ];
        let output = fs::File::create(&log).map_err(|error| format!("{log}: {error}"))?;
        let errors = output.try_clone().map_err(|error| format!("{log}: {error}"))?;
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(programs.join("rabbitmq-server"))
            .arg(&folder)
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("sh: {error}"))?;
        let node =
            Self { url: format!("amqp://guest:guest@127.0.0.1:{port}/"), programs, environment, keeper };
        node.started(port, &log).map(|()| node)
    }

    /// A program of the broker's, such as `rabbitmqctl`, for this node.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.envs(self.environment.iter().cloned());
        command
    }

    fn started(&self, port: u16, log: &str) -> Result<(), String> {
        let deadline = Instant::now() + START;
        // a node tells nobody when it is ready
        while !answers(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            if Instant::now() > deadline {
                let mut text = String::new();
                drop(fs::File::open(log).and_then(|mut log| log.read_to_string(&mut text)));
                return Err(format!(
                    "`{:?}` did not start within {START:?}; it said:\n{text}",
                    self.command("rabbitmq-server").get_program(),
                ));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// The folder with the broker's programs.
fn programs() -> Option<PathBuf> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from(DEBIAN))
        .chain(env::split_paths(&on_path))
        .find(|folder| Path::new(&folder.join("rabbitmq-server")).is_file())
}

/// Three ports that nothing listens on.
fn free_ports() -> [u16; 3] {
    // all at once, so that they differ
    let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
