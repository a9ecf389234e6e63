#!/bin/sh
# supervisor-fleet: one supervisor for each line of a file (supervisor-fleet(1)).
set -u

me=supervisor-fleet
default_file=/etc/supervisor.fleet
file=$default_file
logs=/var/log/supervisor-fleet
way=

usage() {
    cat <<EOF
Usage: $me [-f FILE] [-l DIR] [-w WAY] start|stop|restart|list [NAME ...]
       $me [-f FILE] names
       $me [-f FILE] exec NAME

  start    those of the file that do not run, or only these, but for those with something wrong in their lines
  stop     those of the file, or only these, whatever is wrong with it
  restart  stops them and starts them, by what the file says now; neither, if something is wrong there
  list     shows all instances; exit code 1 if one of the file does not run
  names    prints the names of the file, and what is wrong with it (exit code 2)
  exec     becomes the supervisor of this name, for unit files and run scripts

  -f FILE  default $file; its lines: NAME [OPTION ...] COMMAND [ARGUMENT ...]
  -l DIR   default $logs: NAME.log and NAME.out of those that are started plainly
  -w WAY   systemd, runit or plain; default: what the machine has
EOF
}

complain() {
    printf '%s: %s\n' "$me" "$*" >&2
}

refuse() {
    complain "$*; see '$me -h'"
    exit 2
}

# The lines of the file as 'NUMBER NAME words', the words quoted for the shell; nothing is expanded but
# {name}. The line of the name * goes before the words of those that follow it; as a line of its own it has
# the command true. A line that can't be read is 'NUMBER NAME !REASON', with ? for a name that is none.
read_file() {
    { [ -r "$file" ] && [ ! -d "$file" ]; } || refuse "$file can't be read"
    LC_ALL=C awk '
        function wrong(what) {
            if (reason == "") reason = what
        }
        # Moves the first word of `rest` to `word`, in quotes; whether there was one.
        function next_word(    c, open) {
            sub(/^[ \t\r]+/, "", rest)
            if (rest ~ /^(#|$)/) return 0
            for (word = quote; rest != ""; rest = substr(rest, 2)) {
                c = substr(rest, 1, 1)
                if (open == "" && c ~ /[ \t\r]/) break
                if (c == open) { open = ""; continue }
                if (open == "" && c ~ ("[\"" quote "]")) { open = c; continue }
                if (c == "\\" && (open == "" || open == "\"" && rest ~ /^.["\\$`]/)) {
                    rest = substr(rest, 2)
                    c = substr(rest, 1, 1)
                    if (c == "") wrong("nothing follows the backslash")
                }
                word = word (c == quote ? quote "\\" quote quote : c)
            }
            if (open != "") wrong("the quote " open " is not closed")
            word = word quote
            return 1
        }
        BEGIN { quote = "\047" }
        {
            rest = $0
            reason = words = ""
            if (!next_word()) next
            name = substr(word, 2, length(word) - 2)
            while (next_word()) words = words " " word
            if (name == "*") {
                all = words
                words = words " true"
            } else {
                if (name !~ /^[A-Za-z0-9_@][A-Za-z0-9._@-]*$/ || length(name) > 64) {
                    gsub(/[^ -~]/, "?", name)
                    wrong("a name is up to 64 letters, digits, . _ - and @, not . or - first: " name)
                    name = "?"
                } else if (name in seen) {
                    wrong(name " is the name of line " seen[name])
                    name = "?"
                } else {
                    seen[name] = NR
                }
                if (words == "") wrong("no command")
                words = all words
            }
            gsub(/[{]name[}]/, name, words)
            print NR, name (reason == "" ? words : " !" reason)
        }
    ' "$file"
}

# What this machine keeps services up with. (The unit reads the file that is the default.)
way_of_this_machine() {
    if [ "$file" = "$default_file" ] && [ -d /run/systemd/system ] &&
        systemctl cat supervisor@.service >/dev/null 2>&1; then
        echo systemd
    elif command -v sv >/dev/null && cat /proc/[0-9]*/comm 2>/dev/null | grep -qx runsvdir; then
        echo runit
    else
        echo plain
    fi
}

# The words of a name's line.
words_of() {
    printf '%s\n' "$lines" | awk -v name="$1" '$2 == name { sub(/^[^ ]+ [^ ]+ /, ""); print; exit }'
}

# Says what is wrong with the lines of $about, or with any; fails if something is, and puts their names into
# $faulty. What is wrong with the line of * is wrong with all below it.
check() {
    failed=0 rest='' faulty=' '
    while read -r number name words; do
        [ "$name" != '*' ] || rest=
        case ${about:-" $name "} in *" $name "*) ;; *) continue ;; esac
        case $name:$words in
            :) continue ;;
            *:!*) reason=${words#!} ;;
            *)
                if [ -n "$rest" ]; then
                    # (Which is told already.)
                    faulty="$faulty$name "
                    continue
                fi
                eval "set -- $words"
                [ "$name" = '*' ] || set -- --name "$name" "$@"
                reason=$(supervisor --check "$@" 2>&1) && continue
                reason=${reason#supervisor: }
                ;;
        esac
        failed=2 faulty="$faulty$name "
        [ "$name" != '*' ] || rest=faulty
        [ "$name" = '?' ] || reason="$name: $reason"
        complain "$file:$number: $reason"
    done <<EOF
$lines
EOF
    return $failed
}

# Those of these names that are not in $faulty.
sound() {
    for name in "$@"; do
        case $faulty in *" $name "*) ;; *) echo "$name" ;; esac
    done
}

# Those of these names that no instance has; fails if there are none.
not_running() {
    running=$(supervisor --list | awk 'NR > 1 { print $1 }')
    printf '%s\n' "$@" | grep -vxF -e "$running" -e ''
}

# Becomes the supervisor of a name, with these options before its own, by $launcher if there is one.
become() {
    name=$1
    shift
    eval "set -- \"\$@\" $(words_of "$name")"
    # shellcheck disable=SC2086
    exec $launcher supervisor --name "$name" "$@"
}

launch() (
    cd / && become "$1" --log-file "$logs/$1.log" </dev/null >>"$logs/$1.out" 2>&1
)

start_plain() {
    launcher='setsid -f'
    $launcher true 2>/dev/null || launcher=
    mkdir -p "$logs" || exit 1
    for name in $(not_running "$@"); do
        if [ -n "$launcher" ]; then
            launch "$name"
        else
            # (Who is started in the background of a script ignores SIGINT and SIGQUIT.)
            launch "$name" &
        fi
    done
    # Each has 5 seconds to answer.
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        missing=$(not_running "$@") || return 0
        sleep 0.25 2>/dev/null || sleep 1
    done
    for name in $missing; do
        complain "$name does not run; see $logs/$name.log and $logs/$name.out"
    done
    return 1
}

stop_plain() {
    stops=
    for name in "$@"; do
        supervisor --stop "$name" 2>/dev/null &
        stops="$stops $!:$name"
    done
    failed=0
    for stop in $stops; do
        wait "${stop%%:*}"
        case $? in
            0 | 4) ;; # It has ended, or there was none.
            *)
                complain "${stop#*:} does not end"
                failed=1
                ;;
        esac
    done
    return $failed
}

# As a word of the shell's.
quoted() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

# A service directory for each name. runsvdir finds new ones within 5 seconds.
start_runit() {
    failed=0
    for name in "$@"; do
        service=$services/$name
        if [ -e "$service/run" ] && ! grep -q "$me" "$service/run"; then
            complain "$service is not of $me: left alone"
            failed=1
        elif [ -e "$service" ]; then
            sv up "$service" || failed=1
        else
            new=$services/.$name.new
            mkdir -p "$new" "$logs"
            printf '#!/bin/sh\nexec >>%s 2>&1\nexec %s -f %s exec %s\n' \
                "$(quoted "$logs/$name.out")" "$me" "$(quoted "$file")" "$name" >"$new/run"
            # Who has given up stays down. (0 and 137 may be answers to a restart.)
            cat >"$new/finish" <<'EOF'
#!/bin/sh
case $1 in 0 | 125 | 137 | -1) exit ;; esac
sv down .
# runsv looks at the end of this script first, and would start it once more.
for _ in 1 2 3 4 5; do
    grep -q 'want down' supervise/stat && break
    sleep 1
done
EOF
            chmod +x "$new/run" "$new/finish"
            mv "$new" "$service" || failed=1
        fi
    done
    return $failed
}

stop_runit() {
    failed=0
    for name in "$@"; do
        # As long as its grace period takes.
        sv -w 86400 stop "$services/$name" || failed=1
    done
    return $failed
}

start_systemd() {
    # shellcheck disable=SC2046
    systemctl start $(printf 'supervisor@%s.service ' "$@")
}

stop_systemd() {
    # shellcheck disable=SC2046
    systemctl stop $(printf 'supervisor@%s.service ' "$@")
}

case ${1-} in
    --help) set -- -h ;;
    --?*) refuse "there is no option $1" ;;
esac
while getopts :f:l:w:h option; do
    case $option in
        f) file=$OPTARG ;;
        l) logs=$OPTARG ;;
        w) case $OPTARG in
            systemd | runit | plain) way=$OPTARG ;;
            *) refuse "-w takes systemd, runit or plain" ;;
        esac ;;
        h)
            usage
            exit
            ;;
        :) refuse "-$OPTARG takes a value" ;;
        *) refuse "there is no option -$OPTARG" ;;
    esac
done
shift $((OPTIND - 1))
verb=${1-}
[ $# -eq 0 ] || shift
case $verb in
    start | stop | restart | list) ;;
    names) [ $# -eq 0 ] || refuse "names takes none" ;;
    exec) [ $# -eq 1 ] || refuse "exec takes one name" ;;
    '') refuse "nothing to do" ;;
    *) refuse "there is no '$verb'" ;;
esac
# An init's PATH may not have the directory where both are.
command -v supervisor >/dev/null || PATH=$PATH:$(cd "$(dirname "$0")" && pwd)
command -v supervisor >/dev/null || refuse "supervisor is neither in PATH nor beside $0"
case $file in /*) ;; *) file=$PWD/$file ;; esac
case $logs in /*) ;; *) logs=$PWD/$logs ;; esac
services=${SVDIR-/etc/service}
launcher=
outcome=0

lines=$(read_file) || exit
about="${*:+ * $* }"
if [ $# -eq 0 ]; then
    # shellcheck disable=SC2046
    set -- $(printf '%s\n' "$lines" | awk '$2 ~ /^[^*?]/ && !seen[$2]++ { print $2 }')
else
    # One whose line is gone may still run, and be stopped.
    for name in "$@"; do
        [ -n "$(words_of "$name")" ] || { [ "$verb" = stop ] && ! not_running "$name" >/dev/null; } ||
            refuse "$file has no line for $name"
    done
fi
case $verb in
    names)
        [ $# -eq 0 ] || printf '%s\n' "$@"
        check
        exit
        ;;
    list)
        supervisor --list || exit
        if missing=$(not_running "$@"); then
            # shellcheck disable=SC2086
            complain not running: $missing
            exit 1
        fi
        exit
        ;;
    stop) ;; # Whatever is wrong with its line.
    start)
        # The others do not wait for somebody to come and mend a line.
        check || outcome=1
        # shellcheck disable=SC2046
        set -- $(sound "$@")
        ;;
    *) check || exit ;;
esac
[ "$verb" != exec ] || become "$1"
[ -n "$way" ] || way=$(way_of_this_machine)
[ $# -gt 0 ] || exit "$outcome"
count="$# instances"
[ $# -ne 1 ] || count="1 instance"
if [ "$verb" = start ]; then
    missing=$(not_running "$@" | grep -c .)
    case $missing in
        0) count="$count, running already" ;;
        "$#") ;;
        *) count="$count, $(($# - missing)) of them running already" ;;
    esac
fi
echo "$me: $verb $count, $way"
[ "$verb" = start ] || "stop_$way" "$@" || exit
[ "$verb" = stop ] || "start_$way" "$@" || exit
[ "$outcome" -eq 0 ]
