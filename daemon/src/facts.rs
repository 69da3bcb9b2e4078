//! Facts on disk: what is true now for one look-up, each path asked once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use zcache_proto::Digest;

use crate::compilers::Command;
use crate::compilers::toolchain::file_name;
use crate::directories::{Directories, View, tells_absence};
use crate::inputs::{Inputs, Stamp, path};
use crate::invocation::Invocation;
use crate::manifest::{Attributes, Facts, Kind, Terminal};
use crate::roles::Roots;
use crate::system::{Question, answer};
use crate::twins::Look;

/// The disk, as one invocation sees it.
pub struct Disk<'a> {
    inputs: &'a Inputs,
    invocation: &'a Invocation,
    names: View<'a>,
    contents: HashMap<Vec<u8>, Option<Digest>>,
    looks: HashMap<Vec<u8>, Option<Look>>,
    environment: Option<Digest>,
    command: &'a Command,
}

impl<'a> Disk<'a> {
    /// Nothing asked yet.
    pub fn new(
        inputs: &'a Inputs,
        directories: &'a Directories,
        invocation: &'a Invocation,
        command: &'a Command,
    ) -> Self {
        let names = View::new(directories);
        let (contents, looks) = (HashMap::new(), HashMap::new());
        Self { inputs, invocation, command, names, contents, looks, environment: None }
    }
}

impl Facts for Disk<'_> {
    fn roots(&self) -> &Roots {
        &self.command.roots
    }

    fn content(&mut self, at: &[u8]) -> Option<Digest> {
        if let Some(digest) = self.contents.get(at) {
            return *digest;
        }
        let digest = self.inputs.digest(path(at)).ok().map(|(digest, _)| digest);
        self.contents.insert(at.to_vec(), digest);
        digest
    }

    fn look(&mut self, at: &[u8]) -> Option<Look> {
        if let Some(look) = self.looks.get(at) {
            return *look;
        }
        let look = look(at);
        self.looks.insert(at.to_vec(), look);
        look
    }

    fn is_absent(&mut self, at: &[u8]) -> bool {
        // A link that leads nowhere is as good as nothing.
        self.names.is_absent(at) || fs::metadata(path(at)).is_err_and(|error| tells_absence(&error))
    }

    fn listing(&mut self, at: &[u8]) -> Option<Digest> {
        listing(at).ok()
    }

    fn leads(&mut self, at: &[u8], target: &[u8]) -> bool {
        let leads_by_name = || fs::read_link(path(at)).is_ok_and(|found| found.as_os_str().as_bytes() == target);
        self.names.resolve(at).as_deref() == Some(target) || leads_by_name()
    }

    fn resolves(&mut self, at: &[u8], target: &[u8]) -> bool {
        self.names.resolve(at).as_deref() == Some(target)
    }

    fn terminal(&self) -> Terminal {
        self.invocation.terminal
    }

    fn display(&self) -> Digest {
        self.command.display()
    }

    fn called(&self) -> &[u8] {
        &self.invocation.argv[0]
    }

    fn env(&self, name: &[u8]) -> Option<&[u8]> {
        self.invocation.env.get(name)
    }

    fn environment(&mut self) -> Digest {
        *self.environment.get_or_insert_with(|| environment(self.invocation))
    }

    fn system(&mut self, question: Question) -> Option<Digest> {
        answer(question, self.invocation.process)
    }

    fn which(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        which(name, self.invocation)
    }

    fn library(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        library(name, self.invocation)
    }

    fn attributes(&mut self, at: &[u8]) -> Option<Attributes> {
        attributes(at)
    }
}

/// A look at a path, links followed; a link that leads nowhere is nothing.
pub fn look(at: &[u8]) -> Option<Look> {
    let meta = fs::metadata(path(at)).ok()?;
    let kind = match () {
        () if meta.is_file() => Kind::File,
        () if meta.is_dir() => Kind::Directory,
        () => Kind::Special,
    };
    Some(Look { kind, file: (meta.dev(), meta.ino()), mtime_s: meta.mtime() })
}

/// Attributes of what is at a path, links followed.
pub fn attributes(at: &[u8]) -> Option<Attributes> {
    let meta = fs::metadata(path(at)).ok()?;
    Some(Attributes { mode: meta.permissions().mode(), mtime_ns: Some(Stamp::of(&meta).mtime_ns) })
}

/// Digest of a directory's sorted names.
pub fn listing(at: &[u8]) -> io::Result<Digest> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path(at))? {
        names.push(entry?.file_name().into_vec());
    }
    names.sort_unstable();
    Ok(Digest::of(&postcard::to_stdvec(&names).map_err(io::Error::other)?))
}

/// Digest of all variables. By which way a build was led to zcache is no difference: what names the client as a wrapper
/// says nothing but that, and PATH counts without the directories of links to it.
pub fn environment(invocation: &Invocation) -> Digest {
    let identity = |at: &[u8]| fs::metadata(path(at)).map(|meta| (meta.dev(), meta.ino())).ok();
    let is_client = |at: &[u8]| invocation.client.is_some() && identity(at) == invocation.client;
    let is_wrapper = |name: &[u8]| name.ends_with(b"_WRAPPER") || name.ends_with(b"_COMPILER_LAUNCHER");
    let is_named = |value: &[u8]| match value.contains(&b'/') {
        true => is_client(value),
        false => {
            search(invocation.env.get(b"PATH").unwrap_or_default(), value, &invocation.cwd).any(|at| is_client(&at))
        }
    };
    invocation.env.digest(|name, value| match name {
        // The cc crate alone asks for the one, ccache for the other.
        b"CC_KNOWN_WRAPPER_CUSTOM" | b"CCACHE_DISABLE" => None,
        b"PATH" => {
            let is_ours =
                |dir: &&[u8]| dir.ends_with(b"/bin") && is_client(&[dir, b"/../wrapper/sccache".as_slice()].concat());
            let others: Vec<&[u8]> = value.split(|&b| b == b':').filter(|dir| !is_ours(dir)).collect();
            Some(Cow::Owned(others.join(&b':')))
        }
        _ if is_wrapper(name) && is_named(value) => None,
        _ => Some(Cow::Borrowed(value)),
    })
}

/// The program that `name` means along PATH, the client's own links passed over.
pub fn which(name: &[u8], invocation: &Invocation) -> Option<Vec<u8>> {
    let runs = |meta: fs::Metadata| {
        meta.is_file() && meta.permissions().mode() & 0o111 != 0 && invocation.client != Some((meta.dev(), meta.ino()))
    };
    search(invocation.env.get(b"PATH").unwrap_or(b"/bin:/usr/bin"), name, &invocation.cwd)
        .find(|found| fs::metadata(path(found)).is_ok_and(runs))
}

/// Where along PATH the client looked for the program that it was called for, and there was nothing.
pub fn passed_over(invocation: &Invocation) -> Vec<Vec<u8>> {
    let list = invocation.env.get(b"PATH").unwrap_or(b"/bin:/usr/bin");
    let all: Vec<_> = search(list, file_name(&invocation.program), &invocation.cwd).collect();
    let found = all.iter().position(|at| *at == invocation.program).unwrap_or(0);
    let is_absent = |at: &Vec<u8>| fs::symlink_metadata(path(at)).is_err_and(|error| tells_absence(&error));
    all.into_iter().take(found).filter(is_absent).collect()
}

/// The shared library that `name` means along LD_LIBRARY_PATH.
pub fn library(name: &[u8], invocation: &Invocation) -> Option<Vec<u8>> {
    search(invocation.env.get(b"LD_LIBRARY_PATH")?, name, &invocation.cwd).find(|found| look(found).is_some())
}

/// Where `name` may be, along a list of directories.
fn search<'a>(list: &'a [u8], name: &'a [u8], cwd: &'a [u8]) -> impl Iterator<Item = Vec<u8>> + 'a {
    list.split(|&b| b == b':').map(move |dir| {
        let dir = if dir.starts_with(b"/") { dir.to_vec() } else { [cwd, b"/", dir].concat() };
        [dir.strip_suffix(b"/").unwrap_or(&dir), b"/", name].concat()
    })
}
