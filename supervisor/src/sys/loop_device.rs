//! Loop devices: a file as a block device (loop(4)).

#![allow(unsafe_code)]

use std::os::fd::AsRawFd as _;

use rustix::{
    fd::OwnedFd,
    io::Result,
    ioctl::{Setter, Updater, ioctl},
};

/// `LO_FLAGS_READ_ONLY`, `LO_FLAGS_AUTOCLEAR` and `LO_FLAGS_DIRECT_IO`.
const READ_ONLY: u32 = 1;
const AUTOCLEAR: u32 = 4;
const DIRECT: u32 = 16;

/// The bytes of a name, with its NUL.
const NAME: usize = 64;

const SET_STATUS: rustix::ioctl::Opcode = 0x4C04;
const GET_STATUS: rustix::ioctl::Opcode = 0x4C05;
const CONFIGURE: rustix::ioctl::Opcode = 0x4C0A;

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; NAME],
    crypt_name: [u8; NAME],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Configuration {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; NAME],
    crypt_name: [0; NAME],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// A number that is free at this moment (`LOOP_CTL_GET_FREE`); `control` is `/dev/loop-control`.
///
/// # Errors
///
/// `EPERM`, `ENOSPC`.
pub fn free(control: &OwnedFd) -> Result<u32> {
    struct GetFree;
    // SAFETY: the ioctl takes no argument, so no memory is concerned; the number is its return value.
    unsafe impl rustix::ioctl::Ioctl for GetFree {
        type Output = u32;
        const IS_MUTATING: bool = false;
        fn opcode(&self) -> rustix::ioctl::Opcode {
            0x4C82
        }
        fn as_ptr(&mut self) -> *mut core::ffi::c_void {
            core::ptr::null_mut()
        }
        unsafe fn output_from_ptr(
            number: rustix::ioctl::IoctlOutput,
            _: *mut core::ffi::c_void,
        ) -> Result<Self::Output> {
            u32::try_from(number).map_err(|_| rustix::io::Errno::INVAL)
        }
    }
    // SAFETY: see above.
    unsafe { ioctl(control, GetFree) }
}

/// Makes the free `device` show `backing`, until its last user is gone (`LOOP_CONFIGURE`). `name`, of which the first 63
/// bytes are kept, is only told by [`name`].
///
/// # Errors
///
/// `EBUSY` when it is not free; `EINVAL` for what is not a file.
pub fn configure(
    device: &OwnedFd,
    backing: &OwnedFd,
    name: &[u8],
    is_read_only: bool,
    is_direct: bool,
) -> Result<()> {
    let mut info = EMPTY;
    let name = shortened(name);
    info.file_name[..name.len()].copy_from_slice(name);
    info.flags = AUTOCLEAR;
    if is_read_only {
        info.flags |= READ_ONLY;
    }
    if is_direct {
        info.flags |= DIRECT;
    }
    let configuration = Configuration {
        fd: backing.as_raw_fd().cast_unsigned(),
        block_size: 0,
        info,
        reserved: [0; 8],
    };
    // SAFETY: the ioctl reads one `loop_config`, which `Configuration` is laid out as (checked in the tests), and keeps no
    // pointer to it; `backing` is open during the call, and the kernel takes a reference of its own.
    unsafe { ioctl(device, Setter::<CONFIGURE, _>::new(configuration)) }
}

/// What [`configure`] was told.
///
/// # Errors
///
/// `ENXIO` when the device is free, `ENOTTY` when it is none.
pub fn name(device: &OwnedFd) -> Result<Vec<u8>> {
    let info = status(device)?;
    let end = info.file_name.iter().position(|byte| *byte == 0);
    Ok(info.file_name[..end.unwrap_or(NAME)].to_vec())
}

/// The part of a name that is kept.
pub fn shortened(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME - 1)]
}

/// Whether the device stays when nobody has it open (`LOOP_SET_STATUS64`).
///
/// # Errors
///
/// `ENXIO` when it is free.
pub fn keep(device: &OwnedFd, keep: bool) -> Result<()> {
    let mut info = status(device)?;
    if keep {
        info.flags &= !AUTOCLEAR;
    } else {
        info.flags |= AUTOCLEAR;
    }
    // SAFETY: the ioctl reads one `loop_info64`, which `Info` is laid out as (checked in the tests), and keeps no pointer.
    unsafe { ioctl(device, Setter::<SET_STATUS, _>::new(info)) }
}

fn status(device: &OwnedFd) -> Result<Info> {
    let mut info = EMPTY;
    // SAFETY: the ioctl writes one `loop_info64`, for which every bit pattern is valid, and keeps no pointer.
    unsafe { ioctl(device, Updater::<GET_STATUS, _>::new(&mut info)) }?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_laid_out_as_the_kernel_reads_them() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(std::mem::offset_of!(Info, flags), 52);
        assert_eq!(std::mem::offset_of!(Info, file_name), 56);
        assert_eq!(size_of::<Configuration>(), 8 + 232 + 64);
    }

    #[test]
    fn what_is_no_loop_device_is_refused() {
        let file: OwnedFd = tempfile::tempfile().unwrap().into();
        assert!(name(&file).is_err());
        assert!(keep(&file, true).is_err());
    }

    #[test]
    fn long_names_are_cut_alike() {
        assert_eq!(shortened(&[b'a'; 100]).len(), 63);
        assert_eq!(shortened(b"a"), b"a");
    }
}
