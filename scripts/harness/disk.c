/* What a process does to the files under a directory: written down, and made to fail on demand.
 *
 * Loaded with LD_PRELOAD. DISK_ROOT is the directory (absolute, without a slash at its end).
 * DISK_TRACE names a file to which every change under it is appended, with every fsync's begin and
 * end; harness/replay.py reads it. DISK_FAULTS names a file that is mapped: `struct faults` below,
 * written by whoever wants calls to fail, at any time.
 *
 * It does not see what goes through mmap (SQLite's -shm only, which need not survive),
 * copy_file_range or sendfile; the server uses none of these for what it keeps.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, RENAME, LINK, UNLINK, MKDIR, RMDIR, SYNC, SYNCED, FAILED };
enum { NAMESPACE = 1, JOURNAL = 2, CONTROL = 4, DRAFT = 8, DIRECTORY = 16, SHARED = 32, OTHER = 64 };

struct record {
    double time; /* CLOCK_MONOTONIC */
    int64_t node; /* inode number; a CREATE or MKDIR begins it anew */
    int64_t offset; /* or size, or which SYNC a SYNCED ends */
    uint32_t length; /* of what follows: bytes written, or paths with a NUL between */
    uint32_t kind;
};

struct faults {
    uint32_t sync; /* errno for fsync and fdatasync of `targets`; 0 lets them be */
    uint32_t write; /* for write, ftruncate; with ENOSPC also for what makes a new name */
    uint32_t targets; /* NAMESPACE | ... */
    uint32_t hits; /* calls that were made to fail */
    uint32_t broken; /* errno for the call below and those after it; 0 lets them be */
    uint32_t from; /* which call under the root fails first, counted from 1 */
    uint32_t lasts; /* how many calls fail from there on */
    uint32_t calls; /* how many there were */
};

#define MOST 65536
static unsigned char class_of[MOST]; /* by descriptor; 0 is none of ours */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static size_t root_length;
static int trace = -1;
static int64_t serial;
static volatile struct faults none, *faults = &none;

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void) {
    root = getenv("DISK_ROOT");
    root_length = root ? strlen(root) : 0;
    const char *path = getenv("DISK_TRACE");
    if (root && path)
        trace = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    path = getenv("DISK_FAULTS");
    if (root && path) {
        int file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        if (file >= 0) {
            void *at = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            if (at != MAP_FAILED) faults = at;
            syscall(SYS_close, file);
        }
    }
}

static int inside(const char *path) {
    return root && !strncmp(path, root, root_length) &&
           (path[root_length] == '/' || !path[root_length]);
}

static int ends(const char *path, const char *end) {
    size_t length = strlen(path), tail = strlen(end);
    return length >= tail && !strcmp(path + length - tail, end);
}

static int classify(const char *path) {
    if (ends(path, "-shm")) return SHARED;
    if (strstr(path, "control")) return CONTROL;
    if (ends(path, ".new") || strstr(path, "/.template")) return DRAFT;
    if (ends(path, ".db-wal")) return JOURNAL;
    if (ends(path, ".db")) return NAMESPACE;
    return OTHER;
}

static int fails(uint32_t error, int class) {
    if (!error || !(faults->targets & class)) return 0;
    __sync_fetch_and_add(&faults->hits, 1);
    errno = error;
    return 1;
}

/* Whether this call, whatever it is, is one that is to fail. */
static int breaks(void) {
    uint32_t number = __sync_add_and_fetch(&faults->calls, 1);
    if (!faults->broken || number < faults->from || number - faults->from >= faults->lasts) return 0;
    __sync_fetch_and_add(&faults->hits, 1);
    errno = faults->broken;
    return 1;
}

static int fails_to_make(const char *path, int class) {
    return inside(path) && faults->write == ENOSPC && fails(ENOSPC, class);
}

/* The lock is held. */
static void put(int kind, int64_t node, int64_t offset, const void *data, size_t length) {
    if (trace < 0) return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct record record = {now.tv_sec + now.tv_nsec / 1e9, node, offset, length, kind};
    struct iovec parts[2] = {{&record, sizeof record}, {(void *)data, length}};
    ssize_t whole = sizeof record + length;
    if (syscall(SYS_writev, trace, parts, length ? 2 : 1) != whole) {
        static const char message[] = "disk.c: the trace could not be written\n";
        syscall(SYS_write, 2, message, sizeof message - 1);
        abort();
    }
}

static int64_t node_of(int file) {
    struct stat found;
    return fstat(file, &found) ? -1 : (int64_t)found.st_ino;
}

static int ours(int file) { return file >= 0 && file < MOST ? class_of[file] : 0; }
static int kept(int class) { return class && class != SHARED; }

static int opened(int (*real)(int, const char *, int, ...), int at, const char *path, int flags,
                  mode_t mode) {
    if (at != AT_FDCWD || !inside(path)) {
        /* What is named by a directory's descriptor is not traced; it can be made to fail. */
        int below = at != AT_FDCWD && path[0] != '/' && ours(at) && trace < 0;
        if (below && breaks()) return -1;
        int file = real(at, path, flags, mode);
        if (file >= 0 && file < MOST) class_of[file] = below ? OTHER : 0;
        return file;
    }
    if (breaks()) return -1;
    int class = classify(path), saved;
    pthread_mutex_lock(&lock);
    struct stat before;
    int made = (flags & O_CREAT) && lstat(path, &before);
    if (made && fails_to_make(path, class)) {
        pthread_mutex_unlock(&lock);
        return -1;
    }
    int file = real(at, path, flags, mode);
    saved = errno;
    if (file >= 0) {
        struct stat now;
        if (!fstat(file, &now) && S_ISDIR(now.st_mode)) class = DIRECTORY;
        if (file < MOST) class_of[file] = class;
        if (made && kept(class))
            put(CREATE, now.st_ino, 0, path, strlen(path));
        else if ((flags & O_TRUNC) && kept(class))
            put(TRUNCATE, now.st_ino, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return file;
}

static mode_t mode_of(int flags, va_list rest) {
    return (flags & (O_CREAT | O_TMPFILE)) ? (mode_t)va_arg(rest, int) : 0;
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        static int (*real)(int, const char *, int, ...); \
        if (!real) real = dlsym(RTLD_NEXT, "openat"); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = mode_of(flags, rest); \
        va_end(rest); \
        return opened(real, AT_FDCWD, path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = mode_of(flags, rest); \
        va_end(rest); \
        return opened(real, at, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

int close(int file) {
    REAL(close);
    if (file >= 0 && file < MOST) class_of[file] = 0;
    return real(file);
}

/* Those that change nothing, or name things by a directory's descriptor: they only fail. */

ssize_t read(int file, void *data, size_t length) {
    REAL(read);
    return ours(file) && breaks() ? -1 : real(file, data, length);
}

ssize_t pread(int file, void *data, size_t length, off_t offset) {
    REAL(pread);
    return ours(file) && breaks() ? -1 : real(file, data, length, offset);
}

ssize_t pread64(int file, void *data, size_t length, off64_t offset) {
    REAL(pread64);
    return ours(file) && breaks() ? -1 : real(file, data, length, offset);
}

int flock(int file, int operation) {
    REAL(flock);
    return ours(file) && breaks() ? -1 : real(file, operation);
}

static int locked(int (*real)(int, int, ...), int file, int command, void *argument) {
    int locks = command == F_SETLK || command == F_SETLKW;
    return locks && ours(file) && breaks() ? -1 : real(file, command, argument);
}

#define LOCKS(name) \
    int name(int file, int command, ...) { \
        static int (*real)(int, int, ...); \
        if (!real) real = dlsym(RTLD_NEXT, #name); \
        va_list rest; \
        va_start(rest, command); \
        void *argument = va_arg(rest, void *); \
        va_end(rest); \
        return locked(real, file, command, argument); \
    }
LOCKS(fcntl)
LOCKS(fcntl64)

int renameat(int at, const char *from, int to_at, const char *to) {
    REAL(renameat);
    return (ours(at) || ours(to_at)) && breaks() ? -1 : real(at, from, to_at, to);
}

int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    return ours(at) && breaks() ? -1 : real(at, path, flags);
}

int mkdirat(int at, const char *path, mode_t mode) {
    REAL(mkdirat);
    return ours(at) && breaks() ? -1 : real(at, path, mode);
}

/* At `offset`, or where the file stands if that is -1. */
static ssize_t written(int file, const void *data, size_t length, off_t offset) {
    int class = ours(file);
    if (breaks() || fails(faults->write, class)) return -1;
    pthread_mutex_lock(&lock);
    off_t at = offset;
    if (at < 0) {
        int append = fcntl(file, F_GETFL) & O_APPEND;
        at = lseek(file, 0, append ? SEEK_END : SEEK_CUR);
    }
    ssize_t done = offset < 0 ? syscall(SYS_write, file, data, length)
                              : syscall(SYS_pwrite64, file, data, length, offset);
    int saved = errno;
    if (done > 0 && kept(class)) put(WRITE, node_of(file), at, data, done);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}

ssize_t write(int file, const void *data, size_t length) {
    REAL(write);
    return ours(file) ? written(file, data, length, -1) : real(file, data, length);
}

ssize_t pwrite(int file, const void *data, size_t length, off_t offset) {
    REAL(pwrite);
    return ours(file) ? written(file, data, length, offset) : real(file, data, length, offset);
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) {
    REAL(pwrite64);
    return ours(file) ? written(file, data, length, offset) : real(file, data, length, offset);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    REAL(writev);
    if (!ours(file)) return real(file, parts, count);
    ssize_t sum = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = written(file, parts[i].iov_base, parts[i].iov_len, -1);
        if (done < 0) return sum ? sum : -1;
        sum += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return sum;
}

static int cut(int file, off_t size) {
    int class = ours(file);
    /* Making a file shorter needs no room. */
    if (breaks()) return -1;
    if (faults->write != ENOSPC && fails(faults->write, class)) return -1;
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, file, size), saved = errno;
    if (!result && kept(class)) put(TRUNCATE, node_of(file), size, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int ftruncate(int file, off_t size) {
    REAL(ftruncate);
    return ours(file) ? cut(file, size) : real(file, size);
}

int ftruncate64(int file, off64_t size) {
    REAL(ftruncate64);
    return ours(file) ? cut(file, size) : real(file, size);
}

static int synced(int (*real)(int), int file) {
    int class = ours(file);
    if (!class) return real(file);
    if (breaks() || fails(faults->sync, class)) {
        int error = errno;
        pthread_mutex_lock(&lock);
        if (kept(class)) put(FAILED, node_of(file), 0, NULL, 0);
        pthread_mutex_unlock(&lock);
        errno = error;
        return -1;
    }
    pthread_mutex_lock(&lock);
    int64_t node = node_of(file), number = ++serial;
    put(SYNC, node, number, NULL, 0);
    pthread_mutex_unlock(&lock);
    int result = real(file), saved = errno;
    if (!result) {
        pthread_mutex_lock(&lock);
        put(SYNCED, node, number, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
    return result;
}

int fsync(int file) {
    REAL(fsync);
    return synced(real, file);
}

int fdatasync(int file) {
    REAL(fdatasync);
    return synced(real, file);
}

static int named(int kind, const char *from, const char *to, int result) {
    int saved = errno;
    const char *path = to ? to : from;
    if (!result && inside(path) && kept(classify(path))) {
        char paths[2 * PATH_MAX];
        size_t length = snprintf(paths, sizeof paths, "%s", from);
        if (to) length += 1 + snprintf(paths + length + 1, sizeof paths - length - 1, "%s", to);
        struct stat found = {0};
        if (kind == MKDIR) lstat(from, &found);
        put(kind, kind == MKDIR ? (int64_t)found.st_ino : -1, 0, paths, length);
    }
    pthread_mutex_unlock(&lock);
    errno = saved;
    return result;
}

int rename(const char *from, const char *to) {
    REAL(rename);
    if ((inside(from) || inside(to)) && breaks()) return -1;
    pthread_mutex_lock(&lock);
    return named(RENAME, from, to, real(from, to));
}

int link(const char *from, const char *to) {
    REAL(link);
    if (inside(to) && breaks()) return -1;
    if (fails_to_make(to, classify(to))) return -1;
    pthread_mutex_lock(&lock);
    return named(LINK, from, to, real(from, to));
}

int unlink(const char *path) {
    REAL(unlink);
    if (inside(path) && breaks()) return -1;
    pthread_mutex_lock(&lock);
    return named(UNLINK, path, NULL, real(path));
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    if (inside(path) && breaks()) return -1;
    if (fails_to_make(path, DIRECTORY)) return -1;
    pthread_mutex_lock(&lock);
    return named(MKDIR, path, NULL, real(path, mode));
}

int rmdir(const char *path) {
    REAL(rmdir);
    if (inside(path) && breaks()) return -1;
    pthread_mutex_lock(&lock);
    return named(RMDIR, path, NULL, real(path));
}
