/* The command that scripts/bench.py has supervised, and what launches the supervisors.
 *
 *   bench_child launch PROGRAM ...   notes the time and executes PROGRAM, on the processor BENCH_CPU
 *   bench_child                      the command, which does as BENCH_MODE says:
 *       sleep     until SIGTERM, then exits 0
 *       beat      every BENCH_PERIOD nanoseconds (0: flat out), counted in the file BENCH_COUNTER
 *       hang      beats for a second or so, is silent, and notes when SIGTERM came
 *
 * By the environment, for runsv and s6-supervise give no arguments of ours to a command.
 * A note goes through the FIFO BENCH_FIFO in one write, with the number BENCH_TAG: whose it is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* As `NOTE` in bench.py. */
struct note {
    int32_t tag, what, pid, parent;
    int64_t at, before, after;
};

/* When the last beat began and ended. */
static int64_t before, after;

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static const char *set(const char *name)
{
    const char *value = getenv(name);
    if (!value)
        _exit(2);
    return value;
}

static void note(char what, int64_t at)
{
    struct note said = {atoi(set("BENCH_TAG")), what, getpid(), getppid(), at, before, after};
    int fd = open(set("BENCH_FIFO"), O_WRONLY | O_CLOEXEC);
    /* Where the benchmark is gone there is nothing left to do. */
    if (fd < 0 || write(fd, &said, sizeof said) != sizeof said)
        _exit(0);
    close(fd);
}

static void launch(char **command)
{
    int cpu = atoi(set("BENCH_CPU"));
    /* A benchmark that is killed leaves nothing behind. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (cpu >= 0) {
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    note('L', now());
    execvp(command[0], command);
    _exit(127);
}

static void beat(const char *file)
{
    before = now();
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, "alive\n", 6) != 6)
        _exit(3);
    close(fd);
    after = now();
}

/* By the clock, so that late wake-ups don't add up. */
static void sleep_until(int64_t end)
{
    struct timespec until = {end / 1000000000LL, end % 1000000000LL};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL))
        ;
}

static void beat_on(const char *file)
{
    int64_t period = atoll(set("BENCH_PERIOD")), next = now();
    int fd = open(set("BENCH_COUNTER"), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    /* Through a mapping: the count costs no call, and makes no event. */
    volatile int64_t *count = mmap(NULL, sizeof *count, PROT_WRITE, MAP_SHARED, fd, 0);
    if (count == MAP_FAILED)
        _exit(4);
    for (;;) {
        beat(file);
        ++*count;
        if (period)
            sleep_until(next += period);
    }
}

static void hang(const char *file, const sigset_t *term)
{
    int64_t next = now(), end;
    int got;
    /* At random, so that no two hang together, and that silence falls on any moment of what the
     * supervisor does in turns. */
    srandom((unsigned)(next ^ getpid()));
    end = next + 500000000LL + random() % 1000000000LL;
    for (; next < end; next += 40000000LL + random() % 20000000LL) {
        sleep_until(next);
        beat(file);
    }
    sigwait(term, &got);
    note('T', now());
    _exit(1);
}

int main(int argc, char **argv)
{
    int64_t started = now();
    sigset_t term;
    int got;
    if (argc > 2 && !strcmp(argv[1], "launch"))
        launch(argv + 2);
    const char *mode = set("BENCH_MODE");
    if (strcmp(mode, "beat")) {
        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        sigprocmask(SIG_BLOCK, &term, NULL);
    }
    note('S', started);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!strcmp(mode, "beat"))
        beat_on(set("HEARTBEAT_FILE"));
    if (!strcmp(mode, "hang"))
        hang(set("HEARTBEAT_FILE"), &term);
    sigwait(&term, &got);
    return 0;
}
