/* Preloaded into the supervisor: while $FAULTS/<call> exists, the call fails with the errno in it.
 * `fork` is fork and clone. While $FAULTS/emulated exists, clone is as in qemu-user. pthread_create has two names: first_pthread_create stands for the first call. While $FAULTS/slept exists, the device has slept so many seconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int fault(const char *call)
{
    char path[4096], text[16] = "";
    const char *directory = getenv("FAULTS");
    if (!directory)
        return 0;
    snprintf(path, sizeof path, "%s/%s", directory, call);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    return length > 0 ? atoi(text) : 0;
}

int clone(int (*run)(void *), void *stack, int flags, void *argument, ...)
{
    int (*real)(int (*)(void *), void *, int, void *, ...) =
        (int (*)(int (*)(void *), void *, int, void *, ...))dlsym(RTLD_NEXT, "clone");
    int failure = fault("fork");
    if (!failure)
        failure = fault("clone");
    if (fault("emulated"))
        flags &= ~(CLONE_VM | CLONE_VFORK);
    if (!failure)
        return real(run, stack, flags, argument);
    errno = failure;
    return -1;
}

/* The stack of a launch. */
void *malloc(size_t size)
{
    extern void *__libc_malloc(size_t);
    return size == 0x10000 && fault("memory") ? NULL : __libc_malloc(size);
}

pid_t fork(void)
{
    pid_t (*real)(void) = (pid_t (*)(void))dlsym(RTLD_NEXT, "fork");
    int failure = fault("fork");
    if (!failure)
        return real();
    errno = failure;
    return -1;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                   void *(*start)(void *), void *argument)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) =
        (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
            dlsym(RTLD_NEXT, "pthread_create");
    /* From the second one on, or all. */
    static int created;
    int failure = fault(created++ ? "pthread_create" : "first_pthread_create");
    return failure ? failure : real(thread, attributes, start, argument);
}

int prctl(int option, ...)
{
    va_list rest;
    va_start(rest, option);
    unsigned long argument = va_arg(rest, unsigned long);
    va_end(rest);
    int failure = option == PR_SET_CHILD_SUBREAPER ? fault("subreaper") : 0;
    if (!failure)
        return syscall(SYS_prctl, option, argument, 0, 0, 0);
    errno = failure;
    return -1;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int (*real)(clockid_t, struct timespec *) =
        (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int outcome = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_BOOTTIME)
        now->tv_sec += fault("slept");
    return outcome;
}
