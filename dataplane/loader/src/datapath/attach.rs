//! Loads the programs over the pinned maps and puts them into links: replaced where one is pinned, made where not.

use std::{
    collections::HashMap,
    fmt::Display,
    fs, io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

use aya::{
    EbpfLoader,
    programs::{Program, ProgramError, ProgramFd},
};

use super::{Datapath, Error, MAPS};
use crate::{
    OBJECT,
    pins::{Pins, unpin},
    sys::{self, Hook},
};

/// The programs at the cgroup, with the number of their attach type (`enum bpf_attach_type`).
const CGROUP_PROGRAMS: [(&str, u32); 8] = [
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("getpeername4", 29),
    ("getpeername6", 30),
];

/// How often a program is given to the kernel that cannot take it now.
const TRIES: usize = 5;

/// Has the kernel take all programs; makes and pins the maps that are missing.
pub(super) fn load_programs(pins: &Pins) -> Result<HashMap<String, ProgramFd>, Error> {
    let mut loader = EbpfLoader::new();
    // The programs read no kernel structures. `new` has parsed the kernel's own types all the same (aya 0.14; 16 MiB for a moment):
    // they go before the object comes.
    loader.btf(None);
    for name in MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut object = loader.load(OBJECT).map_err(|source| Error::Object(Box::new(source)))?;
    object
        .programs_mut()
        .map(|(name, program)| {
            let refused = |source| Error::Program { name: name.to_owned(), source: Box::new(source) };
            match program {
                Program::CgroupSockAddr(program) => until_taken(interrupted, || program.load()),
                Program::SchedClassifier(program) => until_taken(interrupted, || program.load()),
                _ => return Err(Error::NoProgram { name: format!("{name} of a known kind") }),
            }
            .map_err(refused)?;
            let fd = program.fd().map_err(refused)?.try_clone();
            Ok((name.to_owned(), fd.map_err(|source| attach_error(name, "a descriptor", source))?))
        })
        .collect()
}

/// Whether the kernel gave a program up with `EAGAIN`: it does when a signal comes for the thread while it verifies (`do_check` in
/// `kernel/bpf/verifier.c`, Linux 6.18), and wants to be asked again.
fn interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. } if io_error.kind() == io::ErrorKind::WouldBlock)
}

/// Asks again, as often as libbpf does, where only the moment was wrong.
fn until_taken<E>(
    wrong_moment: impl Fn(&E) -> bool,
    mut ask: impl FnMut() -> Result<(), E>,
) -> Result<(), E> {
    for _ in 1..TRIES {
        match ask() {
            Err(error) if wrong_moment(&error) => {}
            done => return done,
        }
    }
    ask()
}

impl Datapath {
    pub(super) fn attach_cgroup(&self, path: &Path) -> Result<(), Error> {
        let open = |source| Error::Open { path: path.to_owned(), source };
        let cgroup = fs::File::open(path).map_err(open)?;
        let id = cgroup.metadata().map_err(open)?.ino();
        for (program, attach_type) in CGROUP_PROGRAMS {
            let pin = self.pins.link(program, None);
            self.attach(program, &pin, Hook::Cgroup(cgroup.as_fd(), attach_type), (id, path.display()))?;
        }
        Ok(())
    }

    pub(super) fn attach_device(
        &self,
        program: &str,
        device: &str,
        hook: Hook<'_>,
        ifindex: u32,
    ) -> Result<(), Error> {
        let pin = self.pins.link(program, Some(device));
        self.attach(program, &pin, hook, (u64::from(ifindex), device))
    }

    /// Puts the new programs into the links that earlier loads pinned. A link whose device is gone, or whose
    /// program exists no more, loses its pin.
    pub(super) fn refresh_devices(&self) -> Result<(), Error> {
        for (name, device) in self.pins.device_links()? {
            let pin = self.pins.link(&name, Some(&device));
            let Some(program) = self.programs.get(&name) else {
                unpin(&pin)?;
                continue;
            };
            match sys::object_get(&pin).and_then(|link| sys::link_update(link.as_fd(), program.as_fd())) {
                Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => unpin(&pin)?,
                updated => updated.map_err(|source| attach_error(&name, &device, source))?,
            }
        }
        Ok(())
    }

    /// Replaces the program in the pinned link, when that still hangs on the target with this number; else
    /// makes and pins a new one.
    fn attach(
        &self,
        name: &str,
        pin: &Path,
        hook: Hook<'_>,
        (target, target_name): (u64, impl Display),
    ) -> Result<(), Error> {
        let program = self.program(name)?;
        let attach = || -> io::Result<()> {
            let pinned = match sys::object_get(pin) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                found => Some(found?),
            };
            if let Some(link) = &pinned
                && sys::link_info(link.as_fd())?.target == target
            {
                return sys::link_update(link.as_fd(), program);
            }
            let link = sys::link_create(program, hook)?;
            if pinned.is_some() {
                fs::remove_file(pin)?;
            }
            sys::object_pin(link.as_fd(), pin)
        };
        attach().map_err(|source| attach_error(name, target_name, source))
    }
}

fn attach_error(program: &str, target: impl Display, source: io::Error) -> Error {
    Error::Attach { program: program.to_owned(), target: target.to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_could_not_take_at_that_moment_it_is_asked_again_and_nothing_else() {
        for (answers, asked, result) in [
            (vec![Ok(())], 1, Ok(())),
            (vec![Err("again"), Err("again"), Ok(())], 3, Ok(())),
            (vec![Err("again"), Err("no")], 2, Err("no")),
            (vec![Err("again"); TRIES], TRIES, Err("again")),
        ] {
            let mut left = answers.into_iter();
            let mut count = 0;
            let done = until_taken(
                |error| *error == "again",
                || {
                    count += 1;
                    left.next().unwrap()
                },
            );
            assert_eq!((count, done), (asked, result));
        }
    }
}
