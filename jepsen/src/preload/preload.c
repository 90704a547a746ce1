/*
 * Loaded in front of the C library into the nodes of a run: delays and fails what a node writes below its data directory, and
 * lets its monotonic clock run at another rate. Steered while the process runs by a page in a file that both map; the names of its
 * places stand in preload.rs as well. Without the two variables of the environment it does nothing.
 *
 * (libfiu does not do: it has no delays, knows no fallocate, and fails sockets and logs along with files. libfaketime with one
 * file for all clocks would move the time of day along with the monotonic one.)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call { WRITE, SYNC, ROOM, CALLS };

/* Places in the page, in units of eight bytes. */
enum place {
    DELAY_US = 0,           /* for each kind of call */
    FAIL = 3,               /* how many calls are still to fail, for each kind */
    DELAYED = 6,            /* how many were delayed */
    FAILED = 7,             /* how many have failed */
    FAILED_CALL = 8,        /* of which kind the first was, counted from one */
    CLOCK_SEQUENCE = 9,     /* odd while the clock is being changed */
    CLOCK_BEFORE = 10,      /* real time, own time, millionths: up to the real time of the next */
    CLOCK_NOW = 13,         /* the same, from there on */
    FAILED_PATH = 64,       /* the file that the first failed for */
    ONLY = 128,             /* what a path has to contain to fail */
    PAGE_LEN = 512
};
enum { TEXT_LEN = 512 };

static _Atomic uint64_t *page;
static char below[TEXT_LEN];
static size_t below_len;

static long (*real_syscall)(long, ...);
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_clock_nanosleep)(clockid_t, int, const struct timespec *, struct timespec *);
static int (*real_cond_clockwait)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);

static void resolve(void) {
    real_syscall = dlsym(RTLD_NEXT, "syscall");
    real_clock_nanosleep = dlsym(RTLD_NEXT, "clock_nanosleep");
    real_cond_clockwait = dlsym(RTLD_NEXT, "pthread_cond_clockwait");
    real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
}

__attribute__((constructor)) static void begin(void) {
    resolve();
    const char *steer = getenv("JEPSEN_STEER"), *dir = getenv("JEPSEN_BELOW");
    if (!steer || !dir || strlen(dir) + 2 > sizeof below) return;
    int fd = open(steer, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *mapped = mmap(NULL, PAGE_LEN * 8, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (mapped == MAP_FAILED) return;
    below_len = (size_t)sprintf(below, "%s/", dir);
    page = mapped;
}

/* Files. */

/* A file whose sync has failed: as the kernel does, what was written to it counts as clean from then on. */
struct lost { dev_t dev; ino_t ino; char path[TEXT_LEN]; };
static struct lost all_lost[64];
static _Atomic size_t lost_count;
static pthread_mutex_t losing = PTHREAD_MUTEX_INITIALIZER;

static int path_of(int fd, char *path) {
    char link[32];
    sprintf(link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, TEXT_LEN - 1);
    if (len < 0) return 0;
    path[len] = 0;
    if (strncmp(path, below, below_len) != 0) return 0;
    /* What RocksDB writes for people alone. */
    const char *name = strrchr(path, '/') + 1;
    return strcmp(name, "LOG") != 0;
}

static int is_lost(int fd, const char *path) {
    struct stat of;
    if (!lost_count || fstat(fd, &of) != 0) return 0;
    for (size_t at = 0; at < lost_count; at++) {
        struct lost *lost = &all_lost[at];
        if (lost->dev == of.st_dev && lost->ino == of.st_ino && strcmp(lost->path, path) == 0) return 1;
    }
    return 0;
}

static void lose(int fd, const char *path) {
    struct stat of;
    pthread_mutex_lock(&losing);
    if (fstat(fd, &of) == 0 && lost_count < sizeof all_lost / sizeof *all_lost) {
        struct lost *lost = &all_lost[lost_count];
        lost->dev = of.st_dev;
        lost->ino = of.st_ino;
        strcpy(lost->path, path);
        lost_count++;
    }
    pthread_mutex_unlock(&losing);
}

/* Also for what runs before this library's turn to begin has come. */
#define RAW(...) ((real_syscall ? (void)0 : resolve()), real_syscall(__VA_ARGS__))

static int takes_one(_Atomic uint64_t *left) {
    uint64_t has = *left;
    while (has > 0)
        if (atomic_compare_exchange_weak(left, &has, has - 1)) return 1;
    return 0;
}

enum verdict { GOES_ON, FAILS, DOES_NOTHING };

static enum verdict judge(int fd, enum call call) {
    if (!page) return GOES_ON;
    uint64_t delay_us = page[DELAY_US + call];
    if (!delay_us && !page[FAIL + call] && !(call == SYNC && lost_count)) return GOES_ON;
    int before = errno;
    char path[TEXT_LEN], only[TEXT_LEN];
    int is_meant = path_of(fd, path);
    errno = before;
    if (!is_meant) return GOES_ON;
    if (delay_us) {
        struct timespec pause = {(time_t)(delay_us / 1000000), (long)(delay_us % 1000000 * 1000)};
        page[DELAYED]++;
        real_clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    if (call == SYNC && is_lost(fd, path)) return DOES_NOTHING;
    memcpy(only, (const void *)(page + ONLY), sizeof only);
    only[TEXT_LEN - 1] = 0;
    if (!strstr(path, only) || !takes_one(page + FAIL + call)) return GOES_ON;
    if (call == SYNC) lose(fd, path);
    if (page[FAILED]++ == 0) {
        strcpy((char *)(page + FAILED_PATH), path);
        page[FAILED_CALL] = (uint64_t)call + 1;
    }
    return FAILS;
}

static ssize_t eio(void) {
    errno = EIO;
    return -1;
}

/* Of a write that fails, half reaches the file. */
ssize_t write(int fd, const void *bytes, size_t count) {
    if (judge(fd, WRITE) == GOES_ON) return RAW(SYS_write, fd, bytes, count);
    RAW(SYS_write, fd, bytes, count / 2);
    return eio();
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    if (judge(fd, WRITE) == GOES_ON) return RAW(SYS_pwrite64, fd, bytes, count, at);
    RAW(SYS_pwrite64, fd, bytes, count / 2, at);
    return eio();
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (judge(fd, WRITE) == GOES_ON) return RAW(SYS_writev, fd, parts, count);
    RAW(SYS_writev, fd, parts, count / 2);
    return eio();
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    if (judge(fd, WRITE) == GOES_ON) return RAW(SYS_pwritev, fd, parts, count, at, 0L);
    RAW(SYS_pwritev, fd, parts, count / 2, at, 0L);
    return eio();
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }

static int sync_by(int fd, long number) {
    switch (judge(fd, SYNC)) {
        case FAILS: return (int)eio();
        case DOES_NOTHING: return 0;
        default: return (int)RAW(number, fd);
    }
}

int fsync(int fd) { return sync_by(fd, SYS_fsync); }

int fdatasync(int fd) { return sync_by(fd, SYS_fdatasync); }

int fallocate64(int fd, int mode, off64_t at, off64_t count) {
    if (judge(fd, ROOM) == GOES_ON) return (int)RAW(SYS_fallocate, fd, mode, at, count);
    return (int)eio();
}

int fallocate(int fd, int mode, off_t at, off_t count) { return fallocate64(fd, mode, at, count); }

/* Clocks. */

#define SECOND 1000000000LL

static int is_own(clockid_t clock) {
    return page
        && (clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_MONOTONIC_RAW || clock == CLOCK_BOOTTIME);
}

/* Three numbers from the page, of which rate is never zero. */
struct segment { int64_t real_ns, own_ns, rate; };

static void segments(struct segment *before, struct segment *now) {
    uint64_t first, second;
    do {
        first = page[CLOCK_SEQUENCE];
        *before = (struct segment){(int64_t)page[CLOCK_BEFORE], (int64_t)page[CLOCK_BEFORE + 1], (int64_t)page[CLOCK_BEFORE + 2]};
        *now = (struct segment){(int64_t)page[CLOCK_NOW], (int64_t)page[CLOCK_NOW + 1], (int64_t)page[CLOCK_NOW + 2]};
        second = page[CLOCK_SEQUENCE];
    } while (first != second || first % 2 == 1);
}

static int64_t scaled(int64_t ns, int64_t by, int64_t of) { return (int64_t)((__int128)ns * by / of); }

static int64_t own_of_real(int64_t real) {
    struct segment before, now;
    segments(&before, &now);
    const struct segment *in = real < now.real_ns ? &before : &now;
    return in->own_ns + scaled(real - in->real_ns, in->rate, 1000000);
}

static int64_t real_of_own(int64_t own) {
    struct segment before, now;
    segments(&before, &now);
    const struct segment *in = own < now.own_ns ? &before : &now;
    return in->real_ns + scaled(own - in->own_ns, 1000000, in->rate);
}

static int64_t to_ns(const struct timespec *time) { return (int64_t)time->tv_sec * SECOND + time->tv_nsec; }

static struct timespec from_ns(int64_t ns) {
    if (ns < 0) ns = 0;
    return (struct timespec){(time_t)(ns / SECOND), (long)(ns % SECOND)};
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_clock_gettime) resolve();
    int done = real_clock_gettime(clock, time);
    if (done == 0 && is_own(clock)) *time = from_ns(own_of_real(to_ns(time)));
    return done;
}

/* Those who wait until a time of this clock wait until the time at which it shows it. */
int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *left) {
    if (!(flags & TIMER_ABSTIME) || !is_own(clock)) return real_clock_nanosleep(clock, flags, time, left);
    struct timespec real = from_ns(real_of_own(to_ns(time)));
    return real_clock_nanosleep(clock, flags, &real, left);
}

int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *time) {
    if (!is_own(clock)) return real_cond_clockwait(cond, mutex, clock, time);
    struct timespec real = from_ns(real_of_own(to_ns(time)));
    return real_cond_clockwait(cond, mutex, clock, &real);
}

long syscall(long number, ...) {
    long of[6];
    va_list list;
    va_start(list, number);
    for (int at = 0; at < 6; at++) of[at] = va_arg(list, long);
    va_end(list);
    struct timespec real;
    const struct timespec *until = (const struct timespec *)of[3];
    /* Only this way of waiting names a time; the others name how long. */
    if (number == SYS_futex && page && (of[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET && !(of[1] & FUTEX_CLOCK_REALTIME) && until) {
        real = from_ns(real_of_own(to_ns(until)));
        of[3] = (long)&real;
    }
    return RAW(number, of[0], of[1], of[2], of[3], of[4], of[5]);
}
