/*
 * A disk that is full, or that fails, for the files below one folder: to be preloaded into the server.
 *
 * The environment names the folder (FAULTS_FOLDER) and a file of eight-byte numbers (FAULTS_CONTROL), which all
 * processes of the server map and a test writes to while they run; `faults.py` has the same list. Sockets,
 * pipes and files elsewhere are left alone: each call looks where its descriptor leads, so that nothing has to
 * be remembered when numbers are used again.
 *
 * A fsync that fails takes with it what was written since the last one that did not, if `drops_pages` says so,
 * as some file systems do: what is in the file is then what would be on the disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct control {
  /* Bytes by which files may still grow; below 0: as many as they like. */
  _Atomic int64_t room_bytes;
  /* Whether files and folders may be made while there is no room. */
  _Atomic int64_t makes_names;
  /* Fsyncs that succeed until `syncs_failing` of them fail. */
  _Atomic int64_t syncs_before;
  _Atomic int64_t syncs_failing;
  _Atomic int64_t drops_pages;
  /* What was done: calls refused for want of room, and fsyncs failed. */
  _Atomic int64_t refused;
  _Atomic int64_t failed;
};

/* What a write has replaced: undone newest first. */
struct change {
  struct change *earlier;
  dev_t device;
  ino_t inode;
  off_t offset;
  size_t bytes;     /* written */
  size_t old_bytes; /* of these, how many were in the file before */
  char old[];
};

static struct control *control;
static char folder[PATH_MAX];
static size_t folder_length;
static struct change *changes;
static pthread_mutex_t changes_lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("FAULTS_CONTROL"), *below = getenv("FAULTS_FOLDER");
  if (path == NULL || below == NULL || strlen(below) >= sizeof folder) return;
  int descriptor = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return;
  void *mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  syscall(SYS_close, descriptor);
  if (mapped == MAP_FAILED) return;
  strcpy(folder, below);
  folder_length = strlen(folder);
  control = mapped;
}

static bool is_below(const char *path) {
  return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

/* Whether a descriptor is one of our files or folders; tells its status. */
static bool is_ours(int descriptor, struct stat *status) {
  char link[64], path[PATH_MAX];
  if (control == NULL || fstat(descriptor, status) != 0) return false;
  if (!S_ISREG(status->st_mode) && !S_ISDIR(status->st_mode)) return false;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
  if (length < 0) return false;
  path[length] = 0;
  return is_below(path);
}

/* How many of `bytes` at `offset` there is room for; takes the room. */
static size_t admit(const struct stat *status, off_t offset, size_t bytes) {
  off_t growth = offset + (off_t)bytes - status->st_size;
  if (growth <= 0 || atomic_load(&control->room_bytes) < 0) return bytes;
  int64_t room = atomic_load(&control->room_bytes), taken;
  do {
    if (room < 0) return bytes;
    taken = room < growth ? room : growth;
  } while (!atomic_compare_exchange_weak(&control->room_bytes, &room, room - taken));
  if (taken < growth) atomic_fetch_add(&control->refused, 1);
  size_t missing = (size_t)(growth - taken);
  return missing < bytes ? bytes - missing : 0;
}

/* Keeps what a write is about to replace. */
static void remember(int descriptor, const struct stat *status, off_t offset, size_t bytes) {
  if (!atomic_load(&control->drops_pages)) return;
  off_t there = status->st_size - offset;
  size_t old_bytes = there <= 0 ? 0 : (size_t)there < bytes ? (size_t)there : bytes;
  struct change *change = malloc(sizeof *change + old_bytes);
  if (change == NULL) return;
  *change = (struct change){NULL, status->st_dev, status->st_ino, offset, bytes, old_bytes};
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  int reading = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
  if (syscall(SYS_pread64, reading, change->old, old_bytes, offset) != (ssize_t)old_bytes) change->old_bytes = 0;
  syscall(SYS_close, reading);
  pthread_mutex_lock(&changes_lock);
  change->earlier = changes;
  changes = change;
  pthread_mutex_unlock(&changes_lock);
}

static void put_back(int writing, const struct change *change, off_t size) {
  static const char zeros[4096];
  off_t end = change->offset + (off_t)change->bytes < size ? change->offset + (off_t)change->bytes : size;
  for (off_t at = change->offset; at < end;) {
    size_t done = (size_t)(at - change->offset);
    bool is_old = done < change->old_bytes;
    size_t bytes = is_old ? change->old_bytes - done : sizeof zeros;
    if ((off_t)bytes > end - at) bytes = (size_t)(end - at);
    long written = syscall(SYS_pwrite64, writing, is_old ? change->old + done : zeros, bytes, at);
    if (written <= 0) return;
    at += written;
  }
}

/* Puts back what a change has replaced; zeros where nothing was. The size stays. */
static void undo(int writing, const struct change *change) {
  struct stat status;
  if (fstat(writing, &status) == 0) put_back(writing, change, status.st_size);
}

/* Forgets the changes of a file, after its fsync; undoes them if that has failed. */
static void settle(int descriptor, const struct stat *status, bool has_failed) {
  int writing = -1;
  if (has_failed && S_ISREG(status->st_mode)) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    writing = (int)syscall(SYS_openat, AT_FDCWD, link, O_WRONLY | O_CLOEXEC);
  }
  pthread_mutex_lock(&changes_lock);
  for (struct change **place = &changes; *place != NULL;) {
    struct change *change = *place;
    if (change->device != status->st_dev || change->inode != status->st_ino) {
      place = &change->earlier;
      continue;
    }
    if (writing >= 0) undo(writing, change);
    *place = change->earlier;
    free(change);
  }
  pthread_mutex_unlock(&changes_lock);
  if (writing >= 0) syscall(SYS_close, writing);
}

static bool sync_fails(void) {
  if (atomic_load(&control->syncs_failing) <= 0) return false;
  if (atomic_fetch_sub(&control->syncs_before, 1) > 0) return false;
  if (atomic_fetch_sub(&control->syncs_failing, 1) <= 0) return false;
  atomic_fetch_add(&control->failed, 1);
  return true;
}

static int sync_with(long number, int descriptor) {
  struct stat status;
  if (!is_ours(descriptor, &status)) return (int)syscall(number, descriptor);
  bool has_failed = sync_fails();
  int result = has_failed ? -1 : (int)syscall(number, descriptor);
  settle(descriptor, &status, result != 0);
  if (has_failed) errno = EIO;
  return result;
}

int fsync(int descriptor) { return sync_with(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return sync_with(SYS_fdatasync, descriptor); }

/* Says how many bytes a write of ours may have; 0: none, and errno is set. */
static size_t before_write(int descriptor, const struct stat *status, off_t offset, size_t bytes) {
  size_t allowed = admit(status, offset, bytes);
  if (allowed == 0 && bytes > 0) {
    errno = ENOSPC;
    return 0;
  }
  remember(descriptor, status, offset, allowed);
  return allowed;
}

static off_t place_of(int descriptor, const struct stat *status) {
  int flags = fcntl(descriptor, F_GETFL);
  return flags >= 0 && flags & O_APPEND ? status->st_size : lseek(descriptor, 0, SEEK_CUR);
}

ssize_t write(int descriptor, const void *data, size_t bytes) {
  struct stat status;
  if (is_ours(descriptor, &status)) {
    size_t allowed = before_write(descriptor, &status, place_of(descriptor, &status), bytes);
    if (allowed == 0 && bytes > 0) return -1;
    bytes = allowed;
  }
  return syscall(SYS_write, descriptor, data, bytes);
}

ssize_t pwrite64(int descriptor, const void *data, size_t bytes, off64_t offset) {
  struct stat status;
  if (is_ours(descriptor, &status)) {
    size_t allowed = before_write(descriptor, &status, offset, bytes);
    if (allowed == 0 && bytes > 0) return -1;
    bytes = allowed;
  }
  return syscall(SYS_pwrite64, descriptor, data, bytes, offset);
}

ssize_t pwrite(int descriptor, const void *data, size_t bytes, off_t offset) {
  return pwrite64(descriptor, data, bytes, offset);
}

/* Ours are written a vector at a time, which is a short write to the caller. */
ssize_t writev(int descriptor, const struct iovec *vectors, int count) {
  struct stat status;
  if (count > 0 && is_ours(descriptor, &status)) {
    while (count > 1 && vectors->iov_len == 0) vectors++, count--;
    return write(descriptor, vectors->iov_base, vectors->iov_len);
  }
  return syscall(SYS_writev, descriptor, vectors, count);
}

/* Copies within the kernel are refused as where they are not known; the caller reads and writes then. */
ssize_t sendfile64(int target, int source, off64_t *offset, size_t bytes) {
  struct stat status;
  if (is_ours(target, &status)) {
    errno = EINVAL;
    return -1;
  }
  return syscall(SYS_sendfile, target, source, offset, bytes);
}

ssize_t sendfile(int target, int source, off_t *offset, size_t bytes) {
  return sendfile64(target, source, offset, bytes);
}

int posix_fallocate64(int descriptor, off64_t offset, off64_t bytes) {
  struct stat status;
  if (is_ours(descriptor, &status) && admit(&status, offset, (size_t)bytes) < (size_t)bytes) return ENOSPC;
  return syscall(SYS_fallocate, descriptor, 0, offset, bytes) == 0 ? 0 : errno;
}

int posix_fallocate(int descriptor, off_t offset, off_t bytes) {
  return posix_fallocate64(descriptor, offset, bytes);
}

/* Whether a name below the folder cannot be made now. */
static bool is_refused_name(const char *path) {
  char whole[PATH_MAX];
  if (control == NULL || atomic_load(&control->room_bytes) != 0 || atomic_load(&control->makes_names)) {
    return false;
  }
  if (path[0] != '/') {
    if (getcwd(whole, sizeof whole) == NULL || strlen(whole) + strlen(path) + 2 > sizeof whole) return false;
    strcat(strcat(whole, "/"), path);
    path = whole;
  }
  if (!is_below(path) || faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) return false;
  atomic_fetch_add(&control->refused, 1);
  return true;
}

static int open_at(int at, const char *path, int flags, mode_t mode) {
  if (flags & O_CREAT && (at == AT_FDCWD || path[0] == '/') && is_refused_name(path)) {
    errno = ENOSPC;
    return -1;
  }
  return (int)syscall(SYS_openat, at, path, flags, mode);
}

#define MODE_OF(flags, mode)                              \
  mode_t mode = 0;                                        \
  if ((flags) & (O_CREAT | __O_TMPFILE)) {                \
    va_list rest;                                         \
    va_start(rest, flags);                                \
    mode = (mode_t)va_arg(rest, unsigned);                \
    va_end(rest);                                         \
  }

int open64(const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_at(AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_at(AT_FDCWD, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_at(at, path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
  MODE_OF(flags, mode)
  return open_at(at, path, flags, mode);
}

int mkdir(const char *path, mode_t mode) {
  if (is_refused_name(path)) {
    errno = ENOSPC;
    return -1;
  }
  return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int statvfs64(const char *path, struct statvfs64 *status) {
  int (*real)(const char *, struct statvfs64 *);
  *(void **)&real = dlsym(RTLD_NEXT, "statvfs64");
  int result = real(path, status);
  if (result == 0 && control != NULL && is_below(path)) {
    int64_t room = atomic_load(&control->room_bytes);
    if (room >= 0) status->f_bfree = status->f_bavail = (fsblkcnt64_t)room / status->f_frsize;
  }
  return result;
}

int statvfs(const char *path, struct statvfs *status) {
  return statvfs64(path, (struct statvfs64 *)status);
}
