//! Config: where the store is and how large it may grow. The file first, then the environment. An unknown key or a
//! bad value is an error that names it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Limit of the store where none is given.
const MAX_SIZE: u64 = 20 << 30;

/// What the user decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The store.
    pub dir: PathBuf,
    /// Limit of the blobs' total size, bytes.
    pub max_size: u64,
    /// Log filter, such as `info` or `zcache_daemon=debug`.
    pub log: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file says something that is not understood.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What and where.
        message: String,
    },
    /// A variable does.
    #[error("{name}={value:?}: {message}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: OsString,
        /// What is wrong.
        message: &'static str,
    },
    /// There is no place for the store.
    #[error("set ZCACHE_DIR, XDG_CACHE_HOME or HOME to an absolute path: the store needs a place")]
    NoPlace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    dir: Option<PathBuf>,
    max_size: Option<Size>,
    log: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "SizeText")]
struct Size(u64);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SizeText {
    Bytes(u64),
    Text(String),
}

impl TryFrom<SizeText> for Size {
    type Error = &'static str;
    fn try_from(text: SizeText) -> Result<Self, Self::Error> {
        match text {
            SizeText::Bytes(bytes) => Ok(Self(bytes)),
            SizeText::Text(text) => size(&text).map(Self).ok_or(SIZE_FORM),
        }
    }
}

const SIZE_FORM: &str = "a size is a number of bytes, or one with KiB, MiB, GiB or TiB, such as \"20 GiB\"";
const ABSOLUTE: &str = "the store's directory must be an absolute path";

impl Config {
    /// From the file that `env` leads to, and `env` itself.
    pub fn load(env: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let file = match Self::file(&env) {
            None => File::default(),
            Some(path) => read(&path)?,
        };
        let dir = match env("ZCACHE_DIR").filter(|value| !value.is_empty()) {
            Some(value) if !Path::new(&value).is_absolute() => {
                return Err(ConfigError::Variable { name: "ZCACHE_DIR", value, message: ABSOLUTE });
            }
            Some(value) => PathBuf::from(value),
            None => file.dir.or_else(|| default_dir(&env)).ok_or(ConfigError::NoPlace)?,
        };
        let max_size = match env("ZCACHE_MAX_SIZE").filter(|value| !value.is_empty()) {
            None => file.max_size.map_or(MAX_SIZE, |size| size.0),
            Some(value) => match value.to_str().and_then(size) {
                Some(bytes) => bytes,
                None => return Err(ConfigError::Variable { name: "ZCACHE_MAX_SIZE", value, message: SIZE_FORM }),
            },
        };
        let log = env("ZCACHE_LOG").filter(|value| !value.is_empty()).and_then(|value| value.into_string().ok());
        let log = log.or(file.log).unwrap_or_else(|| "info".to_owned());
        Ok(Self { dir, max_size, log })
    }

    /// Where the file is looked for: `zcache/config.toml` in `XDG_CONFIG_HOME`, or in `~/.config`.
    pub fn file(env: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        xdg(env, "XDG_CONFIG_HOME", ".config").map(|dir| dir.join("zcache/config.toml"))
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let error = |message: String| ConfigError::File { path: path.to_owned(), message };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(absent) if matches!(absent.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(File::default());
        }
        Err(other) => return Err(error(other.to_string())),
    };
    let file: File = toml::from_str(&text).map_err(|bad| error(bad.to_string()))?;
    match &file.dir {
        Some(dir) if !dir.is_absolute() => Err(error(format!("dir = {dir:?}: {ABSOLUTE}"))),
        _ => Ok(file),
    }
}

/// `zcache` in `XDG_CACHE_HOME`, or in `~/.cache`.
fn default_dir(env: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    xdg(env, "XDG_CACHE_HOME", ".cache").map(|dir| dir.join("zcache"))
}

fn xdg(env: &impl Fn(&str) -> Option<OsString>, name: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(name).or_else(|| absolute("HOME").map(|home| home.join(below_home)))
}

/// Bytes from `20 GiB`, `512M` or `1000`. Units are powers of 1024, whatever their spelling.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::load(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    #[test]
    fn the_environment_goes_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        fs::create_dir_all(dir.path().join(".config/zcache")).unwrap();
        let file = dir.path().join(".config/zcache/config.toml");
        fs::write(&file, "dir = \"/from/file\"\nmax_size = \"3 MiB\"\n").unwrap();
        let config = load(&[("HOME", home)]).unwrap();
        assert_eq!((config.dir, config.max_size), (PathBuf::from("/from/file"), 3 << 20));
        let config = load(&[("HOME", home), ("ZCACHE_DIR", "/env"), ("ZCACHE_MAX_SIZE", "7")]).unwrap();
        assert_eq!((config.dir, config.max_size), (PathBuf::from("/env"), 7));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        fs::create_dir_all(dir.path().join(".config/zcache")).unwrap();
        let file = dir.path().join(".config/zcache/config.toml");
        for (text, named) in [("max_sise = 1", "max_sise"), ("max_size = \"lots\"", "max_size"), ("dir = \"x\"", "dir")]
        {
            fs::write(&file, text).unwrap();
            let error = load(&[("HOME", home)]).unwrap_err().to_string();
            assert!(error.contains(named) && error.contains("config.toml"), "{error}");
        }
        let error = load(&[("HOME", "/h"), ("ZCACHE_MAX_SIZE", "x")]).unwrap_err().to_string();
        assert!(error.contains("ZCACHE_MAX_SIZE"), "{error}");
        assert!(matches!(load(&[]), Err(ConfigError::NoPlace)));
    }

    #[test]
    fn sizes() {
        assert_eq!(size("20 GiB"), Some(20 << 30));
        assert_eq!((size("1k"), size("5"), size("2TB")), (Some(1024), Some(5), Some(2 << 40)));
        assert_eq!(
            (size("x"), size("1.5G"), size("99999999999999999999"), size("99999999 TiB")),
            (None, None, None, None)
        );
    }
}
