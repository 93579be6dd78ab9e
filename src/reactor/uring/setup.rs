//! Making the ring: what the kernel must have, and the best of what it may have.

use std::io;

use io_uring::{IoUring, opcode};

/// Submissions that one system call carries; 64 bytes of locked memory each. More are sent in several calls.
const SUBMISSIONS: u32 = 1_024;

/// Completions the ring holds; 16 bytes each. The kernel keeps further ones aside.
pub(super) const COMPLETIONS: u32 = 4_096;

/// Whether the kernel has what is needed; the error says what is missing. Sets up a ring and drops it.
pub(in crate::reactor) fn check() -> Result<(), String> {
    let ring = build_ring().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring (ENOSYS)".to_owned(),
        Some(libc::EPERM) => {
            "io_uring is forbidden here (EPERM: sysctl kernel.io_uring_disabled, or seccomp)".to_owned()
        }
        Some(libc::ENOMEM) => "io_uring found no locked memory (ENOMEM: raise LimitMEMLOCK)".to_owned(),
        _ => format!("io_uring_setup failed: {error}"),
    })?;
    let parameters = ring.params();
    let features = [
        (parameters.is_feature_ext_arg(), "EXT_ARG (Linux 5.11)"),
        (parameters.is_feature_nodrop(), "NODROP (Linux 5.5)"),
        (parameters.is_feature_fast_poll(), "FAST_POLL (Linux 5.7)"),
    ];
    if let Some((_, name)) = features.iter().find(|(present, _)| !present) {
        return Err(format!("io_uring lacks {name}"));
    }
    let mut probe = io_uring::Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| format!("io_uring cannot be probed: {error}"))?;
    let needed = [
        (opcode::Recv::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::Write::CODE, "WRITE"),
        (opcode::Fsync::CODE, "FSYNC"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
    ];
    if let Some((_, name)) = needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(format!("io_uring lacks the operation {name}"));
    }
    Ok(())
}

/// The best ring the kernel gives.
pub(super) fn build_ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp().setup_cqsize(COMPLETIONS).setup_r_disabled();
    let plain = builder.clone();
    // Linux 5.18 and 5.19, then 6.0 and 6.1.
    builder.setup_submit_all().setup_coop_taskrun().setup_taskrun_flag();
    let cooperative = builder.clone();
    builder.setup_single_issuer().setup_defer_taskrun();
    let unknown_flag = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match builder.build(SUBMISSIONS) {
        Err(error) if unknown_flag(&error) => match cooperative.build(SUBMISSIONS) {
            Err(error) if unknown_flag(&error) => plain.build(SUBMISSIONS),
            result => result,
        },
        result => result,
    }
}
