// Preloaded: fsync and fdatasync fail with EIO while the file named by FSYNC_FAILS is there.
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int broken(void) {
    const char *path = getenv("FSYNC_FAILS");
    if (path == NULL || access(path, F_OK) != 0) return 0;
    errno = EIO;
    return 1;
}

int fsync(int fd) { return broken() ? -1 : (int)syscall(SYS_fsync, fd); }

int fdatasync(int fd) { return broken() ? -1 : (int)syscall(SYS_fdatasync, fd); }
