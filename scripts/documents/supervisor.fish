# fish completion for supervisor. Made by `make documents` from supervisor.fish.in and the table of options.

function __supervisor_instances
    supervisor --list 2>/dev/null | awk 'NR > 1 { print $1 }'
end

# The command and its words, if there is one.
function __supervisor_command
    set -l words (commandline -opc) (commandline -ct)
    set -e words[1]
    argparse -s max-restarts= backoff-factor= max-backoff= backoff-jitter= reset-after= enable-heartbeat heartbeat-file= sd-notify timeout= initial-check-delay= hang-signal= grace-period= keep-descendants log-level= log-file= on-event= on-give-up= metrics-file= name= list status= restart= stop= pause= resume= json check h/help V/version -- $words 2>/dev/null
    test -n "$argv"
    and not string match -q -- '-*' $argv[1]
    and string join0 -- $argv
end

function __supervisor_complete_command
    set -l words (__supervisor_command | string split0)
    __fish_complete_subcommand --commandline $words
end

complete -c supervisor -x -a '(__supervisor_complete_command)'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l max-restarts -x -d 'Consecutive restarts before giving up; -1: never give up'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l backoff-factor -x -d 'Delay before the first restart; it doubles with each; 0: none'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l max-backoff -x -d 'Upper bound of a delay'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l backoff-jitter -x -d 'Add up to this part of a delay at random, 0 to 1'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l reset-after -x -d 'A run this long starts the count of restarts again at 0; 0: never'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l enable-heartbeat -d 'Restart the command when its heartbeat file falls silent'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l heartbeat-file -r -F -d 'The file that the command touches; it finds the path in HEARTBEAT_FILE'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l sd-notify -d 'The command beats by sd_notify(3), as under systemd'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l timeout -x -d 'Silence this long is a hang'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l initial-check-delay -x -d 'Extra time for the first beat after each launch'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l hang-signal -x -a '(kill -l | string split -n " ")' -d 'What a hung command is sent first: ABRT for a core'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l grace-period -x -d 'From SIGTERM to SIGKILL; 0: SIGKILL at once'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l keep-descendants -d 'Leave alone what the command leaves behind when it ends'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l log-level -x -a 'error warn info debug' -d 'error, warn, info or debug'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l log-file -r -F -d 'Append the supervisor\'s own log there instead of to stderr'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l on-event -x -d 'Run by the shell at each start, exit, hang and giving up'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l on-give-up -x -d 'Run by the shell, and waited for, when it gives up'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l metrics-file -r -F -d 'Keep a file of metrics for Prometheus there'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l name -x -d 'What this instance is called; default: after its command and pid'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l list -d 'Show all running instances'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l status -x -a '(__supervisor_instances)' -d 'Show one; exit code 0: running, 3: not, 4: there is none'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l restart -x -a '(__supervisor_instances)' -d 'Restart its command now, and wait for the new run'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l stop -x -a '(__supervisor_instances)' -d 'Stop it, and wait until it is gone'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l pause -x -a '(__supervisor_instances)' -d 'Hold its heartbeat deadline, for a debugger'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l resume -x -a '(__supervisor_instances)' -d 'Hold it no longer'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l json -d 'With --list or --status: for programs'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -l check -d 'Only read the command line; exit code 0, or 2 and what is wrong'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -s h -l help -d 'Print help'
complete -c supervisor -n 'not __supervisor_command >/dev/null' -s V -l version -d 'Print version'
