/* A C program that works with and without supervisor:
 *     gcc -Wall -Wextra -O2 -o heartbeat heartbeat.c
 *     supervisor --enable-heartbeat ./heartbeat
 * Copy into your own program: beat(), `interval`, and the call of beat() in your loop. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* A beat is a write to the file. HEARTBEAT_FILE not set: not supervised, no beats. */
static void beat(void) {
    const char *path = getenv("HEARTBEAT_FILE");
    if (!path || !*path) return;
    FILE *f = fopen(path, "w");
    if (f) fprintf(f, "%lld\n", (long long)time(NULL));
    if (!f || fclose(f) != 0) perror(path);   /* reported, not fatal */
}

int main(void) {
    /* supervisor sets HEARTBEAT_TIMEOUT (seconds, 0.5 for example). Four beats in
     * that time leave room for three late ones. */
    const char *text = getenv("HEARTBEAT_TIMEOUT");
    double timeout = text ? atof(text) : 0;
    double interval = (timeout > 0 && timeout <= 1e9 ? timeout : 20) / 4;
    time_t whole = (time_t)interval;
    struct timespec wait = { whole, (long)((interval - (double)whole) * 1e9) };

    /* beat() stands in the loop that does the work. In a thread or a timer of its own
     * it would go on when the work hangs, and supervisor would see nothing. */
    for (;;) {
        puts("working");          /* your work; longer than the interval? call beat() in it too */
        fflush(stdout);
        beat();
        nanosleep(&wait, NULL);   /* waiting for work: never longer than this at a time */
    }
}
