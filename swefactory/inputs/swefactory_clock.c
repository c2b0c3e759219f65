/* A clock that is off: loaded before a program (LD_PRELOAD), adds SWEFACTORY_CLOCK_SHIFT_S seconds to its time of day.

   One property: a program that only measures or waits cannot tell. Monotonic clocks, relative waits and sleeps are left
   alone; absolute times that the program made from the shifted clock go back to the kernel's; times of files are
   shifted on their way out and shifted back on their way in, so that a file written now is as old as now. What is not
   reached: programs that are linked statically or ask the kernel themselves, timers on absolute times.

   libfaketime 0.9.10 cannot be this: with its monotonic clock as it is time.sleep() fails from Python 3.11 on, with a
   shifted one locks wait for ever, and times of files stay behind. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <utime.h>

static long long shift_s(void) {
    static long long seconds;
    static int is_known;
    if (!is_known) {
        const char *text = getenv("SWEFACTORY_CLOCK_SHIFT_S");
        seconds = text ? atoll(text) : 0;
        is_known = 1;
    }
    return seconds;
}

/* glibc keeps the old pthread_cond_timedwait beside the new one: the plain look-up may find the old. */
static void *next(const char *name) {
    void *found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    return found ? found : dlsym(RTLD_NEXT, name);
}

#define NEXT(name)                                  \
    static __typeof__(&name) real;                  \
    if (!real) real = (__typeof__(&name))next(#name)

/* ---------------------------------------------------------------- asking for the time */

static int is_of_day(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t clock, struct timespec *found) {
    NEXT(clock_gettime);
    int code = real(clock, found);
    if (code == 0 && is_of_day(clock)) found->tv_sec += shift_s();
    return code;
}

int gettimeofday(struct timeval *restrict found, void *restrict zone) {
    NEXT(gettimeofday);
    int code = real(found, zone);
    if (code == 0) found->tv_sec += shift_s();
    return code;
}

time_t time(time_t *kept) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (kept) *kept = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *found, int base) {
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, found) == 0 ? base : 0;
}

/* ---------------------------------------------------------------- waiting until a time */

/* A time beyond half the shift was made from the shifted clock; a monotonic one never is. */
static const struct timespec *unshifted(const struct timespec *until, struct timespec *room) {
    struct timespec now;
    if (!until || clock_gettime(CLOCK_REALTIME, &now) || until->tv_sec < now.tv_sec - shift_s() / 2) return until;
    *room = *until;
    room->tv_sec -= shift_s();
    return room;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *until, struct timespec *left) {
    NEXT(clock_nanosleep);
    struct timespec room;
    return real(clock, flags, flags & TIMER_ABSTIME && is_of_day(clock) ? unshifted(until, &room) : until, left);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    NEXT(sem_timedwait);
    struct timespec room;
    return real(semaphore, unshifted(until, &room));
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    NEXT(pthread_cond_timedwait);
    struct timespec room;
    return real(cond, mutex, unshifted(until, &room));
}

int pthread_mutex_timedlock(pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    NEXT(pthread_mutex_timedlock);
    struct timespec room;
    return real(mutex, unshifted(until, &room));
}

/* ---------------------------------------------------------------- times of files */

static int aged(int code, struct stat *found) {
    if (code == 0) {
        found->st_atim.tv_sec += shift_s();
        found->st_mtim.tv_sec += shift_s();
        found->st_ctim.tv_sec += shift_s();
    }
    return code;
}

#define STAT(name, parameters, ...)                                                                                   \
    int name parameters {                                                                                             \
        static int(*real) parameters;                                                                                 \
        if (!real) real = (int(*) parameters)next(#name);                                                             \
        return aged(real(__VA_ARGS__), (struct stat *)found);                                                         \
    }

/* On 64 bits `struct stat64` is `struct stat`; the names with underscores are those of programs older than glibc 2.33. */
_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "this is for systems with one size of files and times");
STAT(stat, (const char *restrict path, struct stat *restrict found), path, found)
STAT(stat64, (const char *restrict path, struct stat64 *restrict found), path, found)
STAT(lstat, (const char *restrict path, struct stat *restrict found), path, found)
STAT(lstat64, (const char *restrict path, struct stat64 *restrict found), path, found)
STAT(fstat, (int file, struct stat *found), file, found)
STAT(fstat64, (int file, struct stat64 *found), file, found)
STAT(fstatat, (int file, const char *restrict path, struct stat *restrict found, int flags), file, path, found, flags)
STAT(fstatat64, (int file, const char *restrict path, struct stat64 *restrict found, int flags), file, path, found, flags)
STAT(__xstat, (int version, const char *path, struct stat *found), version, path, found)
STAT(__xstat64, (int version, const char *path, struct stat64 *found), version, path, found)
STAT(__lxstat, (int version, const char *path, struct stat *found), version, path, found)
STAT(__lxstat64, (int version, const char *path, struct stat64 *found), version, path, found)
STAT(__fxstat, (int version, int file, struct stat *found), version, file, found)
STAT(__fxstat64, (int version, int file, struct stat64 *found), version, file, found)

int statx(int file, const char *restrict path, int flags, unsigned int mask, struct statx *restrict found) {
    NEXT(statx);
    int code = real(file, path, flags, mask, found);
    if (code == 0) {
        found->stx_atime.tv_sec += shift_s();
        found->stx_mtime.tv_sec += shift_s();
        found->stx_ctime.tv_sec += shift_s();
        found->stx_btime.tv_sec += shift_s();
    }
    return code;
}

static const struct timespec *written(const struct timespec times[2], struct timespec room[2]) {
    for (int i = 0; times && i < 2; i++) {
        room[i] = times[i];
        if (times[i].tv_nsec != UTIME_NOW && times[i].tv_nsec != UTIME_OMIT) room[i].tv_sec -= shift_s();
    }
    return times ? room : times;
}

int utimensat(int file, const char *path, const struct timespec times[2], int flags) {
    NEXT(utimensat);
    struct timespec room[2];
    return real(file, path, written(times, room), flags);
}

int futimens(int file, const struct timespec times[2]) {
    NEXT(futimens);
    struct timespec room[2];
    return real(file, written(times, room));
}

static const struct timespec *precise(const struct timeval times[2], struct timespec room[2]) {
    for (int i = 0; times && i < 2; i++) {
        room[i].tv_sec = times[i].tv_sec;
        room[i].tv_nsec = times[i].tv_usec * 1000;
    }
    return times ? room : (const struct timespec *)times;
}

int utimes(const char *path, const struct timeval times[2]) {
    struct timespec room[2];
    return utimensat(AT_FDCWD, path, precise(times, room), 0);
}

int lutimes(const char *path, const struct timeval times[2]) {
    struct timespec room[2];
    return utimensat(AT_FDCWD, path, precise(times, room), AT_SYMLINK_NOFOLLOW);
}

int futimes(int file, const struct timeval times[2]) {
    struct timespec room[2];
    return futimens(file, precise(times, room));
}

int utime(const char *path, const struct utimbuf *times) {
    struct timespec room[2] = {{0}};
    if (times) room[0].tv_sec = times->actime, room[1].tv_sec = times->modtime;
    return utimensat(AT_FDCWD, path, times ? room : NULL, 0);
}
