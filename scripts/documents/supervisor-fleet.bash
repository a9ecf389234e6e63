# bash completion for supervisor-fleet.

_supervisor_fleet() {
    local i option='' how=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -[flw]) option=${COMP_WORDS[i++]} ;;
            -*) ;;
            *) break ;;
        esac
    done
    if ((i > COMP_CWORD)); then
        case $option in
            -f) how=(-f) ;;
            -l) how=(-d) ;;
            -w) how=(-W "systemd runit plain") ;;
        esac
        [[ $option == -w ]] || compopt -o filenames
    elif ((i == COMP_CWORD)); then
        how=(-W "start stop restart list names exec")
        [[ $2 != -* ]] || how=(-W "-f -l -w -h")
    elif [[ ${COMP_WORDS[i]} != names ]]; then
        # By the same options.
        local options=("${COMP_WORDS[@]:1:i-1}")
        how=(-W "$("$1" "${options[@]/#\~/$HOME}" names 2> /dev/null)")
    fi
    ((${#how[@]} == 0)) || mapfile -t COMPREPLY < <(compgen "${how[@]}" -- "$2")
}
complete -F _supervisor_fleet supervisor-fleet
