//! A RabbitMQ node of the tests' own, from the machine's `rabbitmq-server`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

/// How long a node may take to start.
const START: Duration = Duration::from_secs(90);

/// Debian keeps the programs themselves here: those on its PATH change to the user `rabbitmq` first.
const DEBIAN: &str = "/usr/lib/rabbitmq/bin";

/// Takes orders from its standard input, one a line, up to its end, which comes with the end of the test
/// process, however that ends. Then it removes the node and its folder.
const KEEPER: &str = r#"
trap '' INT HUP
while read -r order; do
  case $order in
    # a process group of its own, so that nothing of the node survives
    start) setsid "$1" & node=$! ;;
    kill) kill -KILL "-$node"; wait "$node" ;;
  esac
done
kill -KILL "-$node"
wait "$node"
epmd -kill >/dev/null
rm -rf "$2"
"#;

/// What nodes and their tools know each other by.
const COOKIE: &str = "lepus";

/// A node; it is gone after this is dropped, or the process has ended.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where it listens.
    pub(crate) url: String,
    /// The port of that.
    port: u16,
    programs: PathBuf,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    /// Lives until its standard input, which this process holds, is closed.
    keeper: Child,
}

/// Where a node can be found.
#[derive(Clone, Debug)]
pub(crate) struct Ports {
    pub(crate) amqp: u16,
    pub(crate) distribution: u16,
    /// Of the daemon by which nodes and tools find each other.
    pub(crate) epmd: u16,
}

impl Ports {
    /// Ports that nothing listens on.
    pub(crate) fn free() -> Self {
        let [amqp, distribution, epmd] = free_ports();
        Self { amqp, distribution, epmd }
    }

    /// The name of the node that has these ports.
    pub(crate) fn node(&self) -> String {
        format!("lepus-{}@localhost", self.amqp)
    }
}

impl Node {
    /// Starts a node on a free port, with a data folder of its own.
    pub(crate) fn start() -> Result<Self, String> {
        let mut node = Self::new(&Ports::free(), "")?;
        node.up().map(|()| node)
    }

    /// A node that does not run yet, with further lines for its configuration.
    pub(crate) fn new(ports: &Ports, configuration: &str) -> Result<Self, String> {
        let programs = programs().ok_or("no `rabbitmq-server` is installed")?;
        let Ports { amqp: port, distribution, epmd } = ports;
        let folder = env::temp_dir().join(format!("lepus-node-{}-{port}", process::id()));
        let inside = |name: &str| folder.join(name).display().to_string();
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let configuration = format!("listeners.tcp.1 = 127.0.0.1:{port}\n{configuration}");
        fs::write(folder.join("rabbitmq.conf"), configuration)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        let environment = vec![
            ("HOME", inside("")),
            ("ERL_EPMD_PORT", epmd.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("RABBITMQ_ERLANG_COOKIE", COOKIE.into()),
            ("RABBITMQ_NODENAME", ports.node()),
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
        let log = inside("node.log");
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
        let url = format!("amqp://guest:guest@127.0.0.1:{port}/");
        Ok(Self { url, port: *port, programs, folder, environment, keeper })
    }

    /// Starts it, with the data that it has, and waits until it accepts connections.
    pub(crate) fn up(&mut self) -> Result<(), String> {
        self.order("start")?;
        self.started()
    }

    /// Tells the keeper.
    pub(crate) fn order(&mut self, order: &str) -> Result<(), String> {
        let keeper = self.keeper.stdin.as_mut().ok_or("the node is gone")?;
        writeln!(keeper, "{order}").map_err(|error| format!("the node's keeper: {error}"))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A program of the broker's, such as `rabbitmqctl`, for this node.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.envs(self.environment.iter().cloned());
        command
    }

    fn started(&self) -> Result<(), String> {
        let deadline = Instant::now() + START;
        // a node tells nobody when it is ready
        while !answers(self.address()) {
            if Instant::now() > deadline {
                let mut text = String::new();
                let log = fs::File::open(self.folder.join("node.log"));
                drop(log.and_then(|mut log| log.read_to_string(&mut text)));
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

/// Whether an AMQP broker listens there: it answers the protocol header with a method frame.
pub(crate) fn answers(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\0\0\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok::<_, std::io::Error>(first == [1])
    };
    ask().unwrap_or(false)
}
