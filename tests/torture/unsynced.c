/* A disk that loses what was not synced, as a library that is loaded before libc (LD_PRELOAD).
 *
 * The folder UNSYNCED_ROOT is where a program works; its files are what the page cache shows. The folder UNSYNCED_KEEP,
 * beside it on the same file system, holds what a power cut would leave:
 *
 *   files/<inode>   the bytes of a file as its last fsync or fdatasync left them
 *   names           one line for each change of a name and each fsync of a directory, in order (see journal below)
 *   held/<inode>    files whose last name went away: a cut may bring the name back
 *
 * A sync brings files/<inode> up to date before it returns; nothing else does. So all that the program did by ways that
 * this library cannot see (a raw system call, sync_file_range) counts as not synced until a sync covers it. The test
 * compares both folders after the program was killed, and decides which of the differences the disk has kept.
 *
 * Which blocks a sync has to copy is noted at each write that goes through libc. The first sync of a file in a process,
 * and one that finds another length, compare the file as a whole: fallocate, which the program may call without libc,
 * changes the length, and what another process left is not known here.
 *
 * A real sync is not made: the disk under the test is the folder above, and UNSYNCED_DELAY_US is how long it takes at
 * most. With UNSYNCED_DEAF=fdatasync (or fsync) calls of that name do nothing: so the test shows that it notices.
 *
 * With UNSYNCED_DIE_AT=n the process is killed before its n-th sync or change of a name: so a start can be ended at each
 * of its steps in turn.
 *
 * What would go past all this (a shared writable mapping, a hard link, a rename of a directory) ends the program.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define BLOCK_BYTES 4096
#define CHUNK_BYTES (16 * BLOCK_BYTES)
#define FILES_MAX 4096

/* A file below the root that this process has opened. Never removed: its inode is held, so the number is not reused. */
struct file {
    ino_t inode;
    int bytes;            /* The file itself, for reading. */
    int image;            /* files/<inode>. */
    unsigned char *dirty; /* One byte for each block that was written since the last sync. */
    size_t blocks;
    int whole;            /* The next sync compares all of it. */
    pthread_mutex_t syncing;
};

static char root[PATH_MAX], keep[PATH_MAX];
static const char *deaf = "";
static unsigned delay_us_max;
static long steps_left = -1;
static int journal = -1;
static struct file files[FILES_MAX];
static size_t files_count;
/* Guards files and their notes. */
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
/* Makes a change of a name and its line in the journal one step. */
static pthread_mutex_t naming = PTHREAD_MUTEX_INITIALIZER;

static int (*real_openat)(int, const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fallocate)(int, int, off_t, off_t);
static ssize_t (*real_copy_file_range)(int, off64_t *, int, off64_t *, size_t, unsigned);
static int (*real_renameat)(int, const char *, int, const char *);
static int (*real_unlinkat)(int, const char *, int);
static int (*real_mkdirat)(int, const char *, mode_t);
static int (*real_linkat)(int, const char *, int, const char *, int);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);

static void say(const char *format, ...) {
    char line[2 * PATH_MAX + 256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (journal < 0 || real_write(journal, line, length) != length) abort();
}

static void give_up(const char *what) {
    say("unsupported\t%s\n", what);
    fprintf(stderr, "unsynced: %s is not supported, errno %d\n", what, errno);
    abort();
}

/* Something that a power cut can take back is about to happen, or to be made durable. */
static void step(void) {
    if (steps_left > 0 && __atomic_sub_fetch(&steps_left, 1, __ATOMIC_SEQ_CST) == 0) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
}

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void start(void) {
    real_openat = next("openat");
    real_write = next("write");
    real_writev = next("writev");
    real_pwrite = next("pwrite");
    real_pwritev = next("pwritev");
    real_ftruncate = next("ftruncate");
    real_fallocate = next("fallocate");
    real_copy_file_range = next("copy_file_range");
    real_renameat = next("renameat");
    real_unlinkat = next("unlinkat");
    real_mkdirat = next("mkdirat");
    real_linkat = next("linkat");
    real_fsync = next("fsync");
    real_fdatasync = next("fdatasync");
    real_mmap = next("mmap");
    const char *from = getenv("UNSYNCED_ROOT"), *to = getenv("UNSYNCED_KEEP");
    if (!from || !to || !realpath(from, root) || !realpath(to, keep)) {
        root[0] = 0;
        return;
    }
    if (getenv("UNSYNCED_DEAF")) deaf = getenv("UNSYNCED_DEAF");
    if (getenv("UNSYNCED_DIE_AT")) steps_left = atol(getenv("UNSYNCED_DIE_AT"));
    if (getenv("UNSYNCED_DELAY_US")) delay_us_max = atoi(getenv("UNSYNCED_DELAY_US"));
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/names", keep);
    journal = real_openat(AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (journal < 0) abort();
}

/* ------------------------------------------------------------------------------------------------- where a path leads */

static int is_below_root(const char *path) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && (path[length] == '/' || path[length] == 0);
}

/* The folder of a path and the last part of it; 0 where that is not below the root, or not there at all. */
static int place(int from, const char *path, ino_t *folder, char name[NAME_MAX + 1]) {
    char text[2 * PATH_MAX], real[PATH_MAX];
    if (!root[0] || strlen(path) >= PATH_MAX) return 0;
    if (path[0] == '/' || from == AT_FDCWD) {
        snprintf(text, sizeof text, "%s", path);
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", from);
        ssize_t length = readlink(link, text, PATH_MAX);
        if (length <= 0) return 0;
        snprintf(text + length, sizeof text - length, "/%s", path);
    }
    for (size_t end = strlen(text); end > 1 && text[end - 1] == '/'; end--) text[end - 1] = 0;
    char *slash = strrchr(text, '/');
    const char *last = slash ? slash + 1 : text;
    if (strlen(last) > NAME_MAX || strpbrk(last, "\t\n")) return 0;
    strcpy(name, last);
    if (slash) slash[slash == text] = 0;
    struct stat status;
    if (!realpath(slash ? text : ".", real) || !is_below_root(real) || stat(real, &status)) return 0;
    *folder = status.st_ino;
    return 1;
}

/* Gives a file a name outside of the root, so that its bytes and its number outlive the name that it loses. */
static void hold(int from, const char *path, ino_t inode) {
    char held[PATH_MAX + 64];
    snprintf(held, sizeof held, "%s/held/%lu", keep, (unsigned long)inode);
    if (real_linkat(from, path, AT_FDCWD, held, 0) && errno != EEXIST) give_up("holding a file");
}

/* --------------------------------------------------------------------------------------------- what was written where */

static struct file *find(ino_t inode) {
    for (size_t at = 0; at < files_count; at++)
        if (files[at].inode == inode) return &files[at];
    return NULL;
}

/* Takes notice of an opened file, where it is one below the root. */
static void track(int fd, int emptied) {
    struct stat status;
    char link[64], path[PATH_MAX + 64];
    if (!root[0] || fd < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode)) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return;
    path[length] = 0;
    if (!is_below_root(path)) return;
    pthread_mutex_lock(&table);
    struct file *file = find(status.st_ino);
    if (!file) {
        if (files_count == FILES_MAX) give_up("so many files");
        file = &files[files_count];
        file->inode = status.st_ino;
        file->whole = 1;
        pthread_mutex_init(&file->syncing, NULL);
        file->bytes = real_openat(AT_FDCWD, link, O_RDONLY | O_CLOEXEC);
        snprintf(path, sizeof path, "%s/files/%lu", keep, (unsigned long)status.st_ino);
        file->image = real_openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (file->bytes < 0 || file->image < 0) give_up("opening a file beside another");
        files_count++;
    }
    if (emptied) file->whole = 1;
    pthread_mutex_unlock(&table);
}

/* Notes that blocks were written; without a length, that any of them may have been. Called after the write: a sync that
 * ran at the same time promises nothing, and the next one must copy them. */
static void note(int fd, off_t offset, ssize_t length) {
    struct stat status;
    if (!root[0] || length < 0 || fstat(fd, &status) || !S_ISREG(status.st_mode)) return;
    pthread_mutex_lock(&table);
    struct file *file = find(status.st_ino);
    if (file && length == 0) file->whole = 1;
    if (file && length > 0) {
        size_t first = offset / BLOCK_BYTES, end = (offset + length - 1) / BLOCK_BYTES + 1;
        if (end > file->blocks) {
            file->dirty = realloc(file->dirty, end);
            if (!file->dirty) abort();
            memset(file->dirty + file->blocks, 0, end - file->blocks);
            file->blocks = end;
        }
        memset(file->dirty + first, 1, end - first);
    }
    pthread_mutex_unlock(&table);
}

/* Notes a write at the file's own position, which is behind it by now. */
static void note_behind(int fd, ssize_t length) {
    struct stat status;
    if (root[0] && length > 0 && !fstat(fd, &status) && S_ISREG(status.st_mode))
        note(fd, lseek(fd, 0, SEEK_CUR) - length, length);
}

/* Makes one piece of the image what the file is. */
static void copy(struct file *file, off_t offset, size_t length, off_t end) {
    char now[CHUNK_BYTES], before[CHUNK_BYTES];
    if (offset >= end) return;
    if (offset + (off_t)length > end) length = end - offset;
    ssize_t have = pread(file->bytes, now, length, offset);
    if (have < 0) give_up("reading a file");
    /* The file may have become shorter since its length was asked for. */
    ssize_t had = pread(file->image, before, have, offset);
    if (had == have && !memcmp(now, before, have)) return;
    if (real_pwrite(file->image, now, have, offset) != have) give_up("writing an image");
}

static void persist(struct file *file) {
    struct stat status, image;
    pthread_mutex_lock(&file->syncing);
    pthread_mutex_lock(&table);
    unsigned char *dirty = file->dirty;
    size_t blocks = file->blocks;
    int whole = file->whole;
    file->dirty = NULL;
    file->blocks = 0;
    file->whole = 0;
    pthread_mutex_unlock(&table);
    if (fstat(file->bytes, &status) || fstat(file->image, &image)) give_up("asking for a length");
    if (status.st_size != image.st_size) {
        whole = 1;
        if (real_ftruncate(file->image, status.st_size)) give_up("changing an image's length");
    }
    if (whole) {
        for (off_t at = 0; at < status.st_size; at += CHUNK_BYTES) copy(file, at, CHUNK_BYTES, status.st_size);
    } else {
        for (size_t at = 0; at < blocks; at++)
            if (dirty[at]) copy(file, (off_t)at * BLOCK_BYTES, BLOCK_BYTES, status.st_size);
    }
    free(dirty);
    pthread_mutex_unlock(&file->syncing);
}

static int sync_as(const char *name, int (*real)(int), int fd) {
    struct stat status;
    if (!root[0] || fstat(fd, &status)) return real(fd);
    int is_folder = S_ISDIR(status.st_mode);
    pthread_mutex_lock(&table);
    struct file *file = S_ISREG(status.st_mode) ? find(status.st_ino) : NULL;
    pthread_mutex_unlock(&table);
    if (!is_folder && !file) return real(fd);
    step();
    /* Every other sync takes its time: the moment between a write and its sync is the one that a kill has to meet. */
    unsigned delay_us = delay_us_max ? (unsigned)random() % (2 * delay_us_max) : 0;
    if (delay_us < delay_us_max) usleep(delay_us);
    if (!strcmp(deaf, name)) return 0;
    if (file) {
        persist(file);
    } else {
        pthread_mutex_lock(&naming);
        say("sync\t%lu\n", (unsigned long)status.st_ino);
        pthread_mutex_unlock(&naming);
    }
    return 0;
}

int fsync(int fd) { return sync_as("fsync", real_fsync, fd); }
int fdatasync(int fd) { return sync_as("fdatasync", real_fdatasync, fd); }

ssize_t write(int fd, const void *bytes, size_t length) {
    ssize_t written = real_write(fd, bytes, length);
    note_behind(fd, written);
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t written = real_writev(fd, parts, count);
    note_behind(fd, written);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    ssize_t written = real_pwrite(fd, bytes, length, offset);
    if (written > 0) note(fd, offset, written);
    return written;
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) __attribute__((alias("pwrite")));

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    ssize_t written = real_pwritev(fd, parts, count, offset);
    if (written > 0) note(fd, offset, written);
    return written;
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) __attribute__((alias("pwritev")));

int ftruncate(int fd, off_t length) {
    int result = real_ftruncate(fd, length);
    if (!result) note(fd, 0, 0);
    return result;
}
int ftruncate64(int fd, off64_t length) __attribute__((alias("ftruncate")));

int fallocate(int fd, int mode, off_t offset, off_t length) {
    int result = real_fallocate(fd, mode, offset, length);
    if (!result) note(fd, 0, 0);
    return result;
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) __attribute__((alias("fallocate")));

ssize_t copy_file_range(int from, off64_t *read_at, int to, off64_t *write_at, size_t length, unsigned flags) {
    ssize_t copied = real_copy_file_range(from, read_at, to, write_at, length, flags);
    if (copied > 0) note(to, 0, 0);
    return copied;
}

void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    struct stat status;
    if (root[0] && fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE) && !fstat(fd, &status) &&
        S_ISREG(status.st_mode)) {
        pthread_mutex_lock(&table);
        struct file *file = find(status.st_ino);
        pthread_mutex_unlock(&table);
        if (file) give_up("a shared writable mapping");
    }
    return real_mmap(address, length, protection, flags, fd, offset);
}
void *mmap64(void *, size_t, int, int, int, off64_t) __attribute__((alias("mmap")));

/* ------------------------------------------------------------------------------------------------------------- names
 *
 * Lines of the journal, fields apart by tabs, folders and files by their inodes:
 *   create folder name inode file|folder      remove folder name      rename folder name folder name inode      sync folder
 */

static int open_as(int from, const char *path, int flags, mode_t mode) {
    ino_t folder;
    char name[NAME_MAX + 1];
    if (!(flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE || !place(from, path, &folder, name)) {
        int fd = real_openat(from, path, flags, mode);
        track(fd, flags & O_TRUNC);
        return fd;
    }
    struct stat status;
    pthread_mutex_lock(&naming);
    int is_new = fstatat(from, path, &status, 0) != 0;
    if (is_new) step();
    int fd = real_openat(from, path, flags, mode);
    if (fd >= 0 && is_new) {
        if (fstat(fd, &status)) give_up("asking for a new file's inode");
        say("create\t%lu\t%s\t%lu\tfile\n", (unsigned long)folder, name, (unsigned long)status.st_ino);
    }
    track(fd, flags & O_TRUNC);
    pthread_mutex_unlock(&naming);
    return fd;
}

#define MODE_OF(flags)                                  \
    mode_t mode = 0;                                    \
    if ((flags) & (O_CREAT | O_TMPFILE)) {              \
        va_list arguments;                              \
        va_start(arguments, flags);                     \
        mode = va_arg(arguments, mode_t);               \
        va_end(arguments);                              \
    }

int open(const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_as(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_as(AT_FDCWD, path, flags, mode);
}
int openat(int from, const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_as(from, path, flags, mode);
}
int openat64(int from, const char *path, int flags, ...) {
    MODE_OF(flags)
    return open_as(from, path, flags, mode);
}
int creat(const char *path, mode_t mode) { return open_as(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int renameat(int from, const char *old_path, int to, const char *new_path) {
    ino_t old_folder, new_folder;
    char old_name[NAME_MAX + 1], new_name[NAME_MAX + 1];
    int leaves = place(from, old_path, &old_folder, old_name), arrives = place(to, new_path, &new_folder, new_name);
    if (!leaves && !arrives) return real_renameat(from, old_path, to, new_path);
    if (!leaves || !arrives) give_up("a rename into the root or out of it");
    struct stat moved, replaced;
    pthread_mutex_lock(&naming);
    step();
    int is_there = !fstatat(from, old_path, &moved, AT_SYMLINK_NOFOLLOW);
    if (is_there && !S_ISREG(moved.st_mode)) give_up("a rename of a directory");
    if (!fstatat(to, new_path, &replaced, AT_SYMLINK_NOFOLLOW)) hold(to, new_path, replaced.st_ino);
    int result = real_renameat(from, old_path, to, new_path);
    if (!result)
        say("rename\t%lu\t%s\t%lu\t%s\t%lu\n", (unsigned long)old_folder, old_name, (unsigned long)new_folder, new_name,
            (unsigned long)moved.st_ino);
    pthread_mutex_unlock(&naming);
    return result;
}
int rename(const char *old_path, const char *new_path) { return renameat(AT_FDCWD, old_path, AT_FDCWD, new_path); }
int renameat2(int from, const char *old_path, int to, const char *new_path, unsigned flags) {
    if (flags) give_up("a rename with flags");
    return renameat(from, old_path, to, new_path);
}

static int is_empty(int from, const char *path) {
    int fd = real_openat(from, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = fd < 0 ? NULL : fdopendir(fd);
    if (!folder) give_up("listing a directory");
    struct dirent *entry;
    while ((entry = readdir(folder)) && (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))) {}
    closedir(folder);
    return !entry;
}

int unlinkat(int from, const char *path, int flags) {
    ino_t folder;
    char name[NAME_MAX + 1], held[PATH_MAX + 64];
    struct stat status;
    if (!place(from, path, &folder, name)) return real_unlinkat(from, path, flags);
    pthread_mutex_lock(&naming);
    int result = fstatat(from, path, &status, AT_SYMLINK_NOFOLLOW);
    if (!result) step();
    if (!result && (flags & AT_REMOVEDIR) && S_ISDIR(status.st_mode)) {
        /* A directory cannot have a second name. It moves away instead, and keeps its number. */
        if (is_empty(from, path)) {
            snprintf(held, sizeof held, "%s/held/%lu", keep, (unsigned long)status.st_ino);
            result = real_renameat(from, path, AT_FDCWD, held);
        } else {
            errno = ENOTEMPTY;
            result = -1;
        }
    } else if (!result) {
        if (S_ISREG(status.st_mode)) hold(from, path, status.st_ino);
        result = real_unlinkat(from, path, flags);
    }
    if (!result) say("remove\t%lu\t%s\n", (unsigned long)folder, name);
    int error = errno;
    pthread_mutex_unlock(&naming);
    errno = error;
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int from, const char *path, mode_t mode) {
    ino_t folder;
    char name[NAME_MAX + 1];
    struct stat status;
    if (!place(from, path, &folder, name)) return real_mkdirat(from, path, mode);
    pthread_mutex_lock(&naming);
    step();
    int result = real_mkdirat(from, path, mode), error = errno;
    if (!result) {
        if (fstatat(from, path, &status, 0)) give_up("asking for a new directory's inode");
        say("create\t%lu\t%s\t%lu\tfolder\n", (unsigned long)folder, name, (unsigned long)status.st_ino);
    }
    pthread_mutex_unlock(&naming);
    errno = error;
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

int linkat(int from, const char *old_path, int to, const char *new_path, int flags) {
    ino_t folder;
    char name[NAME_MAX + 1];
    if (place(to, new_path, &folder, name)) give_up("a hard link");
    return real_linkat(from, old_path, to, new_path, flags);
}
int link(const char *old_path, const char *new_path) { return linkat(AT_FDCWD, old_path, AT_FDCWD, new_path, 0); }
