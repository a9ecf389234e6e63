# fish completion for supervisor-fleet.

# Whether a command stands there already. Where it takes names, prints those of the file that is named before.
function __supervisor_fleet_names
    set -l words (commandline -opc)
    set -e words[1]
    argparse -s f= l= w= h -- $words 2>/dev/null
    and set -q argv[1]
    or return
    test $argv[1] = names
    and return
    set -l options
    set -q _flag_f
    and set options -f (string replace -r '^~' $HOME -- $_flag_f)
    supervisor-fleet $options names 2>/dev/null
    return 0
end

complete -c supervisor-fleet -f -a '(__supervisor_fleet_names)'
set -l first 'not __supervisor_fleet_names >/dev/null'
complete -c supervisor-fleet -n $first -s f -r -F -d 'one instance for each line of this file'
complete -c supervisor-fleet -n $first -s l -x -a '(__fish_complete_directories)' \
    -d 'where the output is appended to'
complete -c supervisor-fleet -n $first -s w -x -a 'systemd runit plain' \
    -d 'by what they are started and stopped'
complete -c supervisor-fleet -n $first -s h -d help
complete -c supervisor-fleet -n $first -a start -d 'those that do not run'
complete -c supervisor-fleet -n $first -a stop -d 'stop them and wait'
complete -c supervisor-fleet -n $first -a restart -d 'stop and start them'
complete -c supervisor-fleet -n $first -a list -d 'show all instances'
complete -c supervisor-fleet -n $first -a names -d 'print the names, and what is wrong'
complete -c supervisor-fleet -n $first -a exec -d 'become the supervisor of one'
