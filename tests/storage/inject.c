// Makes the file operations of one process fail as a disk does. The file named by INJECT says which: an error number, a
// part of the path, and the names of the calls.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

static int fails_at(const char *call, const char *path) {
    const char *order = getenv("INJECT");
    int fd = order ? (int)syscall(SYS_openat, AT_FDCWD, order, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    char text[512], place[256], name[64];
    long n = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    int number, skipped;
    text[n > 0 ? n : 0] = 0;
    if (sscanf(text, "%d %255s%n", &number, place, &skipped) != 2) return 0;
    snprintf(name, sizeof name, " %s ", call);
    if (!strstr(text + skipped, name) || !strstr(path, place)) return 0;
    return number;
}

static int fails(const char *call, int fd) {
    char link[64], path[4096];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    int number = fails_at(call, path);
    errno = number ? number : before;
    return number;
}

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *b, size_t n) { return fails("write", fd) ? -1 : REAL(write)(fd, b, n); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { return fails("pwrite", fd) ? -1 : REAL(pwrite)(fd, b, n, o); }
ssize_t pwrite64(int fd, const void *b, size_t n, off_t o) { return fails("pwrite", fd) ? -1 : REAL(pwrite64)(fd, b, n, o); }
ssize_t copy_file_range(int in, off_t *i, int out, off_t *o, size_t n, unsigned f) {
    return fails("write", out) ? -1 : REAL(copy_file_range)(in, i, out, o, n, f);
}
ssize_t sendfile64(int out, int in, off_t *o, size_t n) {
    return fails("write", out) ? -1 : (ssize_t)syscall(SYS_sendfile, out, in, o, n);
}
int fsync(int fd) { return fails("fsync", fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails("fsync", fd) ? -1 : REAL(fdatasync)(fd); }
int flock(int fd, int op) { return fails("flock", fd) ? -1 : REAL(flock)(fd, op); }
int close(int fd) {
    int number = fails("close", fd), before = errno;
    int closed = (int)syscall(SYS_close, fd);
    if (closed == 0) errno = before;
    return number ? -1 : closed;
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    int number = fails_at("link", to);
    if (number) { errno = number; return -1; }
    return REAL(linkat)(a, from, b, to, flags);
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
