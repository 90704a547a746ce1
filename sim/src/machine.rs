//! Time and randomness below the standard library.
//!
//! The product takes the monotonic clock from `std::time::Instant`, the wall clock from `SystemTime`, and randomness from `rand`
//! and the standard hash maps; openraft and tokio draw theirs from the same places. All of them come down to two functions of the
//! C library, which this program defines itself. On the thread that simulates, time is that of the simulation and random bytes
//! follow from the seed. Other threads, those of RocksDB, get what the kernel gives. (The idea is madsim's.)
//!
//! Nothing is synced: files lie in a temporary folder, and a simulated crash leaves what was written to them.
//!
//! A node has the time of its tokio runtime, which turmoil advances. Outside of all runtimes it is the time at which the tick began.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// When a simulation begins on the wall clock, in seconds since 1970: the first of January 2026.
const BEGINS_UNIX_S: u64 = 1_767_225_600;
/// What the monotonic clock shows then. Leases and the like reach back.
const BEGINS_MONOTONIC_S: u64 = 100_000;

thread_local! {
    static SIMULATES: Cell<bool> = const { Cell::new(false) };
    /// Set while tokio is asked for the time, which may ask for it itself.
    static ASKING: Cell<bool> = const { Cell::new(false) };
    static ELAPSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

/// Lets this thread simulate from now on, for good.
pub fn begin(seed: u64) {
    RANDOM.set(seed ^ 0x5eed_0f0d_70fe_12c5);
    SIMULATES.set(true);
    BEGAN.set(Some(Instant::now()));
}

/// How much of the simulation is over, outside of the runtimes of its nodes.
pub fn set_elapsed(elapsed: Duration) {
    ELAPSED.set(elapsed);
}

/// How much of the simulation is over: inside a node's runtime as that sees it.
pub fn now() -> Duration {
    let Some(began) = BEGAN.get() else { return ELAPSED.get() };
    if ASKING.get() || tokio::runtime::Handle::try_current().is_err() {
        return ELAPSED.get();
    }
    ASKING.set(true);
    let time = tokio::time::Instant::now().into_std();
    ASKING.set(false);
    time.saturating_duration_since(began)
}

/// The next eight random bytes (splitmix64).
fn next_random() -> u64 {
    let state = RANDOM.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    RANDOM.set(state);
    let mut mixed = state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Stands for the function of the C library.
///
/// # Safety
/// As there: `time` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let begins_s = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => BEGINS_UNIX_S,
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_BOOTTIME => {
            BEGINS_MONOTONIC_S
        }
        _ => 0,
    };
    if begins_s == 0 || !SIMULATES.try_with(Cell::get).unwrap_or(false) {
        // SAFETY: the arguments are those of the caller.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as libc::c_int;
    }
    let now = Duration::from_secs(begins_s) + now();
    let now = libc::timespec { tv_sec: now.as_secs() as libc::time_t, tv_nsec: now.subsec_nanos().into() };
    // SAFETY: the caller says that it can be written to.
    unsafe { time.write(now) };
    0
}

/// Stands for the function of the C library.
///
/// # Safety
/// As there: `length` bytes at `bytes` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(bytes: *mut u8, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if !SIMULATES.try_with(Cell::get).unwrap_or(false) {
        // SAFETY: the arguments are those of the caller.
        return unsafe { libc::syscall(libc::SYS_getrandom, bytes, length, flags) } as libc::ssize_t;
    }
    for at in (0..length).step_by(8) {
        let random = next_random().to_le_bytes();
        let count = (length - at).min(random.len());
        // SAFETY: `at + count` is at most `length`, and the caller says that so much can be written to.
        unsafe { std::ptr::copy_nonoverlapping(random.as_ptr(), bytes.add(at), count) };
    }
    length as libc::ssize_t
}

/// Stands for the function of the C library, in the whole process.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(_file: libc::c_int) -> libc::c_int {
    0
}

/// Stands for the function of the C library, in the whole process.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(_file: libc::c_int) -> libc::c_int {
    0
}
