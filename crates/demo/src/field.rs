//! The field: every part of it started, and broken and mended on demand. It moves no reading itself and judges none.

use std::path::Path;
use std::time::Duration;

use tidelog_record::DeviceId;
use tidelog_sim::air::{Air, AirCounters, AirError, AirOptions};
use tidelog_sim::ports::free_port;

use crate::boards::{BoardError, Boards};
use crate::broker::{self, BrokerError};
use crate::certificates::{CertificateError, Certificates};
use crate::chaos::Trouble;
use crate::daemon::{Client, Daemon, DaemonError};
use crate::feed::Replay;
use crate::key::RadioKey;
use crate::options::Options;
use crate::program::{Program, Programs};
use crate::sensors::{SensorError, Sensors};
use crate::uplink::Uplink;
use crate::watcher::{Watcher, WatcherError};

/// How many gateways the field has.
pub const GATEWAYS: usize = 2;
/// The gateways' addresses on the air.
const ADDRESSES: [DeviceId; GATEWAYS] =
    [DeviceId([0x02, 0x12, 0x4b, 0xff, 0, 0, 0, 1]), DeviceId([0x02, 0x12, 0x4b, 0xff, 0, 0, 0, 2])];
/// The site that all readings belong to.
pub const SITE: &str = "demo";

/// Why the field does not stand.
#[derive(Debug, thiserror::Error)]
pub enum FieldError {
    /// The simulated air.
    #[error("the simulated air does not start: {0}")]
    Air(#[from] AirError),
    /// The embedded broker.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The MQTT subscription.
    #[error(transparent)]
    Watcher(#[from] WatcherError),
    /// A daemon.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// Certificates.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The virtual sensors.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// The emulated boards.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The broker's URL.
    #[error("--mqtt {url}: expected mqtt://HOST:PORT")]
    Url {
        /// What was given.
        url: String,
    },
    /// A port or a file.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The links of one gateway to the world.
struct Links {
    cloud: Uplink,
    mqtt: Uplink,
}

/// All parts of the field. Dropping it ends the daemons with kill -9; [`Field::end`] asks them first.
pub struct Field {
    air: Air,
    /// The network's key, unless the air is open.
    pub key: Option<RadioKey>,
    links: Vec<Links>,
    cloud: Daemon,
    gateways: Vec<Daemon>,
    /// What an MQTT subscriber hears.
    pub watcher: Watcher,
    /// The virtual sensors.
    pub sensors: Sensors,
    /// The emulated boards.
    pub boards: Boards,
}

impl Field {
    /// Starts everything, sensors and boards last (`climate` is what there is to measure around boards), and returns when every daemon is ready.
    ///
    /// # Errors
    /// [`FieldError`] says which part does not stand, and why.
    pub async fn start(
        options: &Options,
        programs: Programs,
        replays: &[Replay],
        climate: &[Replay],
        folder: &Path,
    ) -> Result<Self, FieldError> {
        let key = if options.open_air { None } else { Some(RadioKey::random(folder)?) };
        let air = Air::start(AirOptions {
            loss: options.loss,
            delay: Duration::from_millis(options.delay),
            seed: options.seed,
            pcap: options.pcap.clone(),
            ..AirOptions::default()
        })
        .await?;
        let (mqtt_host, mqtt_port) = match &options.mqtt {
            Some(url) => host_and_port(url)?,
            None => {
                let listen = free_port()?;
                broker::start(listen)?;
                ("127.0.0.1".to_owned(), listen.port())
            }
        };
        let watcher = Watcher::start(&mqtt_host, mqtt_port, &format!("tidelog/{SITE}/+")).await?;

        let certificates = Certificates::create(folder)?;
        let peering = free_port()?;
        let common = |name: &str, is_cloud: bool| -> Result<Vec<String>, CertificateError> {
            let data = folder.join(name).display().to_string();
            let mut flags = vec!["--data".to_owned(), data, "--site".to_owned(), SITE.to_owned()];
            flags.extend(certificates.issue(name, is_cloud)?);
            Ok(flags)
        };
        let mut flags = common("cloud", true)?;
        flags.extend(["--peering-listen".to_owned(), peering.to_string()]);
        let mut cloud = Daemon::new("cloud", programs.cloud, folder, flags)?;
        cloud.start()?;

        let (mut links, mut gateways) = (Vec::new(), Vec::new());
        for (index, (eui, program)) in ADDRESSES.iter().zip(programs.gateways).enumerate() {
            let link = Links {
                cloud: Uplink::open(peering.to_string()).await?,
                mqtt: Uplink::open(format!("{mqtt_host}:{mqtt_port}")).await?,
            };
            let name = format!("gateway-{}", index + 1);
            let mut flags = common(&name, false)?;
            flags.extend([
                "--radio".to_owned(),
                format!("zep://{}", air.address()),
                "--eui".to_owned(),
                eui.to_string(),
                "--peering-peers".to_owned(),
                link.cloud.address().to_string(),
                "--mqtt-url".to_owned(),
                format!("mqtt://{}", link.mqtt.address()),
                "--mqtt-payload".to_owned(),
                // One gateway of each kind, so that both are judged.
                if index % 2 == 0 { "json" } else { "msgpack" }.to_owned(),
            ]);
            if let Some(key) = &key {
                flags.extend(["--radio-key-file".to_owned(), key.file().display().to_string()]);
            }
            let mut gateway = Daemon::new(&name, program, folder, flags)?;
            gateway.start()?;
            gateways.push(gateway);
            links.push(link);
        }
        for daemon in gateways.iter_mut().chain([&mut cloud]) {
            daemon.wait_ready().await?;
        }
        let samples_most = replays.iter().map(|replay| replay.samples.len()).max().unwrap_or_default();
        let (network_key, pace_hz) = (key.as_ref().map(RadioKey::network_key), options.pace_hz(samples_most));
        let sensors =
            Sensors::start(replays, &ADDRESSES, air.address(), network_key, pace_hz, options.seed).await?;
        let boards = match programs.board {
            Some(program) => {
                let (count, measured) = (usize::from(options.boards), (climate, options.once));
                Boards::start(count, program, folder, &ADDRESSES, &air, key.as_ref(), measured).await?
            }
            None => Boards::none(),
        };
        Ok(Self { air, key, links, cloud, gateways, watcher, sensors, boards })
    }

    /// The daemons' names and HTTP sides: gateways first, the cloud last.
    pub fn places(&self) -> Vec<(String, Client)> {
        self.gateways.iter().chain([&self.cloud]).map(|d| (d.name().to_owned(), d.client())).collect()
    }

    /// Where to ask them.
    pub fn urls(&self) -> Vec<(String, String)> {
        self.gateways.iter().chain([&self.cloud]).map(|d| (d.name().to_owned(), d.url())).collect()
    }

    /// What each daemon runs, in the order of [`Field::places`].
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.gateways.iter().chain([&self.cloud]).map(Daemon::program)
    }

    /// Most resident memory of each daemon, in KiB, in the order of [`Field::places`].
    pub fn resident_kib(&self) -> Vec<Option<u64>> {
        self.gateways.iter().chain([&self.cloud]).map(Daemon::resident_kib).collect()
    }

    /// What went through the air.
    pub fn air(&self) -> AirCounters {
        self.air.counters()
    }

    /// Breaks one thing. What is broken already stays broken.
    ///
    /// # Errors
    /// When the system refuses to kill a process.
    pub async fn break_one(&mut self, trouble: Trouble) -> Result<(), FieldError> {
        match trouble {
            Trouble::KillGateway(index) => self.gateways[index].kill()?,
            Trouble::KillCloud => self.cloud.kill()?,
            Trouble::CutSensor(index) => match index.checked_sub(self.sensors.count()) {
                None => self.sensors.power_cut(index).await?,
                Some(board) => self.boards.power_cut(board).map_err(BoardError::Io)?,
            },
            Trouble::CutUplink(index) => {
                self.links[index].cloud.cut();
                self.links[index].mqtt.cut();
            }
        }
        Ok(())
    }

    /// Mends what [`Field::break_one`] broke.
    ///
    /// # Errors
    /// When a process or sensor cannot be started again.
    pub async fn mend(&mut self, trouble: Trouble) -> Result<(), FieldError> {
        match trouble {
            Trouble::KillGateway(index) => self.gateways[index].start()?,
            Trouble::KillCloud => self.cloud.start()?,
            Trouble::CutSensor(index) => match index.checked_sub(self.sensors.count()) {
                None => self.sensors.power_on(index).await?,
                Some(board) => self.boards.power_on(board).map_err(BoardError::Io)?,
            },
            Trouble::CutUplink(index) => {
                self.links[index].cloud.mend();
                self.links[index].mqtt.mend();
            }
        }
        Ok(())
    }

    /// Waits until every daemon is ready again.
    ///
    /// # Errors
    /// [`FieldError::Daemon`] with the end of the log of one that is not.
    pub async fn wait_ready(&mut self) -> Result<(), FieldError> {
        for daemon in self.gateways.iter_mut().chain([&mut self.cloud]) {
            daemon.wait_ready().await?;
        }
        Ok(())
    }

    /// Ends boards, sensors and daemons in order.
    ///
    /// # Errors
    /// A daemon that does not end cleanly after SIGTERM.
    pub async fn end(mut self) -> Result<(), FieldError> {
        self.boards.end().map_err(BoardError::Io)?;
        self.sensors.end().await;
        tokio::task::block_in_place(|| {
            self.gateways.iter_mut().chain([&mut self.cloud]).try_for_each(Daemon::terminate)
        })?;
        Ok(())
    }
}

fn host_and_port(url: &str) -> Result<(String, u16), FieldError> {
    let error = || FieldError::Url { url: url.to_owned() };
    let rest = url.strip_prefix("mqtt://").ok_or_else(error)?;
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').unwrap_or((rest, "1883"));
    match port.parse() {
        Ok(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(error()),
    }
}
