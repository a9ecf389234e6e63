/* Hangs, in the way that its argument names. It says `hung` first. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void *wait_for_the_mutex(void *name)
{
    prctl(PR_SET_NAME, name);
    pthread_mutex_lock(&mutex);
    return NULL;
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    int count = argc > 2 ? atoi(argv[2]) : 1;
    int ends[2];
    volatile unsigned long spins = 0;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(how, "futex")) {
        pthread_mutex_lock(&mutex);
        pthread_t threads[1000];
        for (int i = 0; i < count; i++)
            pthread_create(&threads[i], NULL, wait_for_the_mutex, "stuck\n here");
        puts("hung");
        pthread_join(threads[0], NULL);
    } else if (!strcmp(how, "pipe")) {
        char byte;
        if (pipe(ends)) return 1;
        puts("hung");
        return read(ends[0], &byte, 1);
    } else if (!strcmp(how, "loop")) {
        puts("hung");
        for (;;) spins++;
    } else if (!strcmp(how, "chmod")) {
        /* Beats once, and then changes the file's mode for ever. */
        const char *file = getenv("HEARTBEAT_FILE");
        fclose(fopen(file, "w"));
        puts("hung");
        for (;;) chmod(file, 0600 + (spins++ & 7));
    } else if (!strcmp(how, "vfork")) {
        /* Who waits for a vforked child sleeps uninterruptibly (D), but can be killed. */
        puts("hung");
        if (vfork() == 0) { pause(); _exit(0); }
    } else if (!strcmp(how, "tree")) {
        for (int i = 1; i < count; i++)
            if (fork() == 0) { pause(); _exit(0); }
        puts("hung");
        pause();
    }
    return 0;
}
