//! A disk that is small enough to run full: a file system in memory, in a mount namespace of its own.
//!
//! A process holds the namespace, so that the disk outlives the servers that are started on it and killed.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::suite;

/// A file system of a given size. It goes away with this, once no server uses it any more.
pub struct Disk {
    holder: Child,
    /// What `nsenter` enters besides the mounts.
    user: bool,
    folder: PathBuf,
}

/// Mounts, says so, and holds the namespace until whoever started it goes away.
const HOLD: &str = r#"mount -t tmpfs -o "size=$1" keyward "$0" && echo mounted && exec cat"#;

impl Disk {
    /// A disk of `mib` MiB.
    ///
    /// # Errors
    /// Why this machine does not let us have one.
    pub fn of_mib(mib: u64) -> Result<Self, String> {
        Self::at(&suite::kept("disk"), mib)
    }

    /// A disk of `mib` MiB in place of a folder that is there.
    ///
    /// # Errors
    /// Why this machine does not let us have one.
    pub fn at(folder: &Path, mib: u64) -> Result<Self, String> {
        // As the other namespace finds it: no link in it leads elsewhere.
        let folder = &folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut why = String::new();
        for user in [true, false] {
            match Self::hold(folder, mib, user) {
                Ok(disk) => return Ok(disk),
                Err(said) => why += &format!("{}: {said}; ", if user { "a user namespace" } else { "as root" }),
            }
        }
        Err(why.trim_end_matches("; ").to_owned())
    }

    fn hold(folder: &Path, mib: u64, user: bool) -> Result<Self, String> {
        let mut unshare = Command::new("unshare");
        if user {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["--mount", "sh", "-c", HOLD]).arg(folder).arg(format!("{mib}m"));
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let holder = unshare.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut disk = Self { holder, user, folder: folder.to_owned() };
        let mut said = [0; 8];
        if disk.holder.stdout.as_mut().unwrap().read_exact(&mut said).is_ok() {
            fs::read_dir(disk.seen()).map_err(|error| format!("looking at it: {error}"))?;
            let entered = disk.command(Path::new("true")).output().map_err(|error| format!("nsenter: {error}"))?;
            let said = String::from_utf8_lossy(&entered.stderr).trim().to_owned();
            return if entered.status.success() { Ok(disk) } else { Err(said) };
        }
        let mut said = String::new();
        disk.holder.stderr.as_mut().unwrap().read_to_string(&mut said).ok();
        Err(said.trim().to_owned())
    }

    /// The disk's folder, for who was started with [`Disk::command`].
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The same folder for this process, and for those that it starts otherwise.
    pub fn seen(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.strip_prefix("/").unwrap())
    }

    /// `program` where the disk is mounted. The process that starts is the program itself.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.holder.id()));
        if self.user {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg("--mount").arg("--").arg(program);
        command
    }

    /// Fills it to the last byte with one big file.
    pub fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let block = vec![1; 1 << 20];
        for size in [1 << 20, 4 << 10] {
            loop {
                match ballast.write_all(&block[..size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{}: {error}", self.ballast().display()),
                }
            }
        }
    }

    /// Takes all that is free at one instant: no write comes between.
    pub fn fill_at_once(&self) {
        // Refused, for being less than what is used, if something was written since it was asked.
        while !self.resize(&format!("{}k", self.used_kib())) {}
    }

    /// Makes it `mib` MiB large, with nothing on it but what servers wrote.
    pub fn clear(&self, mib: u64) {
        assert!(self.resize(&format!("{mib}m")), "a larger disk was refused");
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{}: {error}", self.ballast().display()),
            _ => {}
        }
    }

    fn ballast(&self) -> PathBuf {
        self.seen().join("ballast")
    }

    fn used_kib(&self) -> u64 {
        let mut df = self.command(Path::new("df"));
        let output = df.args(["-k", "--output=used"]).arg(&self.folder).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or_else(|| panic!("df: {said}"))
    }

    fn resize(&self, size: &str) -> bool {
        let mut mount = self.command(Path::new("mount"));
        // With device and type named, no option that the mount has already is given again: some are not ours to give.
        mount.args(["-t", "tmpfs", "-o", &format!("remount,size={size}"), "keyward"]).arg(&self.folder);
        mount.stderr(Stdio::null());
        mount.status().unwrap().success()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
