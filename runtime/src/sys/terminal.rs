//! Pseudo-terminals.

use super::{Errno, Fd, raw};

fn ioctl(fd: Fd, request: libc::Ioctl, argument: usize) -> Result<usize, Errno> {
    // SAFETY: every caller passes a number, or a pointer to a live variable of the request's type.
    unsafe { raw(libc::SYS_ioctl, [fd.arg(), request as usize, argument]) }
}

/// Unlocks the other end of a master.
pub(crate) fn unlock(master: Fd) -> Result<(), Errno> {
    let unlocked: libc::c_int = 0;
    ioctl(master, libc::TIOCSPTLCK, &raw const unlocked as usize).map(drop)
}

/// Opens the other end of a master, without a path that somebody could have replaced.
pub(crate) fn open_peer(master: Fd) -> Result<Fd, Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    ioctl(master, libc::TIOCGPTPEER, flags as usize).map(|number| Fd::at(number as i32))
}

/// Sets the size in characters.
pub(crate) fn set_size(terminal: Fd, rows: u16, columns: u16) -> Result<(), Errno> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    ioctl(terminal, libc::TIOCSWINSZ, &raw const size as usize).map(drop)
}

/// Makes it the controlling terminal of this session.
pub(crate) fn make_controlling(terminal: Fd) -> Result<(), Errno> {
    ioctl(terminal, libc::TIOCSCTTY, 0).map(drop)
}
