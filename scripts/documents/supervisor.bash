# bash completion for supervisor. Made by `make documents` from supervisor.bash.in and the table of options.

_supervisor() {
    local cur=${2#=} option='' i how
    COMPREPLY=()
    # Our own words. `--option value` is two, `--option=value` three.
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --max-restarts|--backoff-factor|--max-backoff|--backoff-jitter|--reset-after|--heartbeat-file|--timeout|--initial-check-delay|--hang-signal|--grace-period|--log-level|--log-file|--on-event|--on-give-up|--metrics-file|--name|--status|--restart|--stop|--pause|--resume)
                option=${COMP_WORDS[i++]}
                [[ ${COMP_WORDS[i]} != = ]] || ((i == COMP_CWORD)) || ((i++))
                ((i < COMP_CWORD)) || break
                option=''
                ;;
            --)
                ((i++))
                break
                ;;
            -*) ;;
            *) break ;;
        esac
    done
    case $option in
        --heartbeat-file|--log-file|--metrics-file)
            compopt -o filenames
            how=(-f)
            ;;
        --status|--restart|--stop|--pause|--resume)
            how=(-W "$("$1" --list 2> /dev/null | awk 'NR > 1 { print $1 }')")
            ;;
        --log-level) how=(-W "error warn info debug") ;;
        --hang-signal)
            cur=SIG${cur#SIG}
            how=(-A signal)
            ;;
        --*)
            compopt +o default
            return
            ;;
        *)
            if ((i < COMP_CWORD)) && declare -F _command_offset > /dev/null; then
                # The command's own completion.
                _command_offset "$i"
                return
            elif ((i < COMP_CWORD)); then
                return
            elif [[ $cur == -* && ${COMP_WORDS[i - 1]} != -- ]]; then
                how=(-W "-h -V --max-restarts --backoff-factor --max-backoff --backoff-jitter --reset-after --enable-heartbeat --heartbeat-file --sd-notify --timeout --initial-check-delay --hang-signal --grace-period --keep-descendants --log-level --log-file --on-event --on-give-up --metrics-file --name --list --status --restart --stop --pause --resume --json --check --help --version")
            else
                how=(-c)
            fi
            ;;
    esac
    mapfile -t COMPREPLY < <(compgen "${how[@]}" -- "$cur")
}
complete -o default -F _supervisor supervisor
