//! Giving up root for good, before anything from outside is read.

use std::io;

use nix::{
    sys::prctl,
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

/// Becomes the given user and group, without supplementary groups, and without a way to gain rights by executing
/// anything. Must be called while the process has one thread.
pub fn drop_to(user: u32) -> io::Result<()> {
    prctl::set_no_new_privs()?;
    if !Uid::effective().is_root() {
        return Ok(());
    }
    setgroups(&[])?;
    let group = Gid::from_raw(user);
    setresgid(group, group, group)?;
    let user = Uid::from_raw(user);
    setresuid(user, user, user)?;
    Ok(())
}
