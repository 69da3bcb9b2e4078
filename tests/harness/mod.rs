//! Harness: real compilers and the built programs in a world of their own: store, socket, runtime directory and
//! configuration below one temporary directory, removed together with its daemon when the test ends.

#![allow(dead_code, reason = "each test file uses its part of the harness")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The shim under test.
pub const CLIENT: &str = env!("CARGO_BIN_EXE_zcache-client");
/// The people's command under test.
pub const ZCACHE: &str = env!("CARGO_BIN_EXE_zcache");
/// The daemon under test.
pub const ZCACHED: &str = env!("CARGO_BIN_EXE_zcached");

/// One isolated place with its own daemon.
pub struct World {
    dir: TempDir,
    /// Whoever runs its commands, where that is another.
    user: Option<u32>,
}

impl World {
    /// Directories and no daemon yet.
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// As [`World::new`], in a directory of `place`.
    pub fn below(place: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("zc").tempdir_in(place).expect("a temporary directory");
        for name in ["store", "run", "config", "home"] {
            fs::DirBuilder::new().mode(0o700).create(dir.path().join(name)).expect("a directory");
        }
        Self { dir, user: None }
    }

    /// One whose commands may not change what is the machine's, whoever runs the test: as root, `gcc -c x.c -o
    /// /dev/stdout` removes `/dev/stdout`.
    pub fn harmless() -> Self {
        const NOBODY: u32 = 65534;
        let user = nix::unistd::getuid().is_root().then_some(NOBODY);
        let mut world = Self::new();
        world.user = user;
        world.hand_over();
        world
    }

    /// Gives all that is there to whoever runs its commands.
    pub fn hand_over(&self) {
        if let Some(user) = self.user {
            run(Command::new("chown").args(["-R", &format!("{user}:{user}")]).arg(self.dir.path()));
        }
    }

    /// A path in this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command in this world's environment, free of what the test runner's cargo set.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = self.user {
            command.uid(user).gid(user).env("HOME", self.path("home")).env("PATH", "/usr/local/bin:/usr/bin:/bin");
        }
        let noise = "CARGO RUST ZCACHE LD_ MAKE CMAKE_ MFLAGS DEP_ OUT_DIR TARGET HOST PROFILE";
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let kept = ["CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"].contains(&text.as_ref());
            if !kept && noise.split(' ').any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.env("ZCACHE_DIR", self.path("store")).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("XDG_CONFIG_HOME", self.path("config")).env("ZCACHE_LOG", "zcache_daemon=debug,info");
        command.env("XDG_DATA_HOME", self.path("data"));
        command.env("CARGO_NET_OFFLINE", "true").env("CARGO_TERM_COLOR", "never");
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// `cargo` through zcache, in a project of this world.
    pub fn cargo(&self, project: &str, arguments: &str) -> Command {
        let mut command = self.bare_cargo(project, arguments);
        command.env("RUSTC_WRAPPER", CLIENT);
        command
    }

    /// `cargo` without zcache.
    pub fn bare_cargo(&self, project: &str, arguments: &str) -> Command {
        let mut command = self.command("cargo");
        command.args(arguments.split_whitespace()).current_dir(self.path(project));
        command
    }

    /// The shim in front of rustc.
    pub fn rustc(&self, arguments: &str) -> Command {
        let mut command = self.command(CLIENT);
        command.arg(rustc()).args(arguments.split_whitespace());
        command
    }

    /// rustc alone.
    pub fn bare_rustc(&self, arguments: &str) -> Command {
        let mut command = self.command(rustc());
        command.args(arguments.split_whitespace());
        command
    }

    /// `zcache` with arguments.
    pub fn zcache(&self, arguments: &str) -> Command {
        let mut command = self.command(ZCACHE);
        command.args(arguments.split_whitespace());
        command
    }

    /// The status report. What was committed before is in it.
    pub fn status(&self) -> Value {
        let output = run(&mut self.zcache("status --json"));
        serde_json::from_slice(&output.stdout).expect("status prints JSON")
    }

    /// One counter of the totals.
    pub fn total(&self, name: &str) -> u64 {
        self.status()["totals"][name].as_u64().unwrap_or_else(|| panic!("no total called {name}"))
    }

    /// Hits, misses and bypasses since `before`, a report of [`World::status`].
    pub fn since(&self, before: &Value) -> Counts {
        let now = self.status();
        let of = |name: &str| {
            let count = |report: &Value| report["totals"][name].as_u64().expect("a counter");
            count(&now) - count(before)
        };
        Counts { hits: of("hits"), misses: of("misses"), bypasses: of("bypasses") }
    }

    /// Writes files below this world, making their directories.
    pub fn write(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = self.path(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
    }

    /// Writes an executable script.
    pub fn script(&self, name: &str, text: &str) -> PathBuf {
        self.write(&[(name, text)]);
        let path = self.path(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        path
    }

    /// Removes a file or directory, if it is there.
    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }

    /// The daemon's log.
    pub fn log(&self) -> String {
        let files = fs::read_dir(self.path("run/zcache")).into_iter().flatten().flatten();
        let logs = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "log"));
        logs.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
    }

    /// Processes of `zcached` that serve this world.
    pub fn daemons(&self) -> Vec<u32> {
        let mine = format!("XDG_RUNTIME_DIR={}", self.path("run").display());
        let numbers =
            fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let is_mine = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let env = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            name.trim() == "zcached" && env.split(|&b| b == 0).any(|variable| variable == mine.as_bytes())
        };
        numbers.filter(is_mine).collect()
    }

    /// Waits until every `zcached` of this world has gone.
    pub fn wait_until_gone(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.daemons().is_empty() {
            assert!(Instant::now() < until, "the daemon does not go");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for pid in self.daemons() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    }
}

/// Outcomes counted over some commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub hits: u64,
    pub misses: u64,
    pub bypasses: u64,
}

/// The toolchain's rustc, which cargo calls, rather than rustup's.
pub fn rustc() -> &'static Path {
    static RUSTC: OnceLock<PathBuf> = OnceLock::new();
    RUSTC.get_or_init(|| {
        let output = Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs");
        PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim()).join("bin/rustc")
    })
}

/// Runs a command that has to succeed.
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}\n{stdout}\n{stderr}", output.status);
    output
}

/// What it prints, trimmed.
pub fn stdout(command: &mut Command) -> String {
    String::from_utf8_lossy(&run(command).stdout).trim().to_owned()
}

/// Everything that one command leaves: its streams and end, and the files below a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

/// Runs a command and takes down its effect in `dir`.
pub fn effect(command: &mut Command, dir: &Path) -> Effect {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Effect { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr), files: files(dir) }
}

/// Files, directories and links below `dir`, with mode and content.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let (path, meta) = (entry.path(), entry.metadata().expect("metadata"));
            let content = match &meta {
                meta if meta.is_dir() => {
                    pending.push(path.clone());
                    Vec::new()
                }
                meta if meta.is_symlink() => {
                    fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
                }
                // A socket or a pipe holds nothing that stays.
                meta if !meta.is_file() => Vec::new(),
                _ => fs::read(&path).expect("a file"),
            };
            let relative = path.strip_prefix(dir).expect("below").to_owned();
            found.insert(relative, (meta.permissions().mode() & 0o7777, content));
        }
    }
    found
}

/// Asserts equality with a message that names what differs rather than printing megabytes.
pub fn assert_same(want: &Effect, got: &Effect, what: &str) {
    assert_eq!(want.code, got.code, "{what}: exit code; stderr: {}", got.stderr);
    assert_eq!(want.stdout, got.stdout, "{what}: stdout");
    assert_eq!(want.stderr, got.stderr, "{what}: stderr");
    assert_eq!(want.files.keys().collect::<Vec<_>>(), got.files.keys().collect::<Vec<_>>(), "{what}: files");
    for (path, (mode, bytes)) in &want.files {
        let (got_mode, got_bytes) = &got.files[path];
        assert_eq!(format!("{mode:o}"), format!("{got_mode:o}"), "{what}: mode of {}", path.display());
        assert!(bytes == got_bytes, "{what}: bytes of {}", path.display());
    }
}
