/* Commands that start others, for the tests of the tree: what they start hides in groups and sessions
 * of its own, and does not obey.
 *
 *   brood KIND [NUMBER] [deaf]
 *
 *   daemon         forks twice, the grandchild in a session of its own; then waits
 *   group          a child in a group of its own; then waits
 *   chain N        N generations, each in a session of its own; all wait
 *   flat N         N children, each in a group of its own; all wait
 *   orphans N      starts N grandchildren that end at once, by children that ended before; then waits
 *   comets N       N lines of processes, each of which forks its successor in a session of its own and
 *                  ends, for ever
 *   thread         ends its first thread, another one goes on; in a child
 *   execs          executes itself, again and again
 *   heeds          ends with 0 when it is told to
 *   counts WHO     says `told WHO` each time that it is told to end, and does not
 *   late           when told to end, forks a child, that says `late`, and `told` when it is told; and
 *                  ends when somebody writes to the FIFO `go`
 *   saves          when told to end, forks a child, that says `late`, and, when somebody writes to the FIFO
 *                  `go`, whether it was told, too; ends when all its children have
 *
 * (A shell will not do for these: dash loses a signal that comes while it starts a program.)
 *
 * It says `brood <pid>` where all are there. With `deaf` everybody but the first ignores SIGTERM; with
 * `exit` the first ends with 1 when all are there. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int deaf, leave;

static pid_t fork_or_die(void) {
    pid_t pid = fork();
    if (pid < 0) { perror("fork"); exit(99); }
    if (pid == 0 && deaf) signal(SIGTERM, SIG_IGN);
    return pid;
}

static void wait_for_ever(void) {
    for (;;) pause();
}

static void say(const char *word) {
    printf("brood %s %d\n", word, (int)getpid());
    fflush(stdout);
}

static void be_a_comet(void) {
    /* A child of nobody: its end is nobody's business but the reaper's. */
    for (;;) {
        pid_t pid = fork();
        if (pid > 0) _exit(0);
        if (pid == 0) setsid();
    }
}

static sigset_t term;

/* From here on none is lost between two calls. */
static void block_term(void) {
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
}

static void await_term(void) {
    int signal;
    sigwait(&term, &signal);
}

static void *go_on(void *unused) {
    (void)unused;
    say("thread");
    wait_for_ever();
    return NULL;
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    int number = argc > 2 ? atoi(argv[2]) : 0;
    for (int i = 2; i < argc; i++) {
        deaf |= !strcmp(argv[i], "deaf");
        leave |= !strcmp(argv[i], "exit");
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(kind, "execs")) {
        execv("/proc/self/exe", argv);
        return 99;
    }
    if (!strcmp(kind, "heeds") || !strcmp(kind, "counts") || !strcmp(kind, "late") ||
        !strcmp(kind, "saves")) {
        block_term();
        puts("listens");
        await_term();
        while (!strcmp(kind, "counts")) {
            printf("told %s\n", argc > 2 ? argv[2] : "");
            await_term();
        }
        if (!strcmp(kind, "saves")) {
            if (fork_or_die() == 0) {
                char line[8];
                sigset_t told;
                puts("late");
                read(open("go", O_RDONLY), line, sizeof line);
                sigpending(&told);
                puts(sigismember(&told, SIGTERM) ? "helper told" : "helper saved");
                return 0;
            }
            while (wait(NULL) > 0);
        }
        if (!strcmp(kind, "late")) {
            if (fork_or_die() == 0) {
                puts("late");
                await_term();
                puts("told");
                return 0;
            }
            char line[8];
            read(open("go", O_RDONLY), line, sizeof line);
        }
        return 0;
    }
    int ready[2];
    char byte = 0;
    if (pipe(ready)) return 99;
    if (!strcmp(kind, "daemon")) {
        if (fork_or_die() == 0) {
            setsid();
            if (fork_or_die() == 0) {
                write(ready[1], &byte, 1);
                wait_for_ever();
            }
            _exit(0);
        }
        wait(NULL);
        number = 1;
    } else if (!strcmp(kind, "group")) {
        if (fork_or_die() == 0) {
            setpgid(0, 0);
            write(ready[1], &byte, 1);
            wait_for_ever();
        }
        number = 1;
    } else if (!strcmp(kind, "chain")) {
        pid_t first = getpid();
        for (int i = 0; i < number; i++) {
            if (fork_or_die()) {
                if (getpid() == first) break;
                wait_for_ever();
            }
            setsid();
            write(ready[1], &byte, 1);
            if (i == number - 1) wait_for_ever();
        }
    } else if (!strcmp(kind, "flat")) {
        for (int i = 0; i < number; i++)
            if (fork_or_die() == 0) {
                setpgid(0, 0);
                write(ready[1], &byte, 1);
                wait_for_ever();
            }
    } else if (!strcmp(kind, "orphans")) {
        for (int i = 0; i < number; i++) {
            if (fork_or_die() == 0) {
                if (fork_or_die() == 0) {
                    write(ready[1], &byte, 1);
                    _exit(0);
                }
                _exit(0);
            }
            wait(NULL);
        }
    } else if (!strcmp(kind, "comets")) {
        for (int i = 0; i < number; i++)
            if (fork_or_die() == 0) {
                write(ready[1], &byte, 1);
                be_a_comet();
            }
    } else if (!strcmp(kind, "thread")) {
        if (fork_or_die() == 0) {
            pthread_t other;
            setsid();
            pthread_create(&other, NULL, go_on, NULL);
            write(ready[1], &byte, 1);
            pthread_exit(NULL);
        }
        number = 1;
    } else {
        fprintf(stderr, "brood: no kind '%s'\n", kind);
        return 99;
    }
    for (int i = 0; i < number; i++)
        if (read(ready[0], &byte, 1) != 1) return 99;
    say("ready");
    if (leave) return 1;
    wait_for_ever();
}
