# Sets up the agent's interactive bash; sourced once at its start. The prompt is OpenHands' own, which tells the end of
# a command, its exit code and folder. It is set anew at each prompt, as activating an environment changes it.
stty -echo
bind 'set enable-bracketed-paste off'
bind 'set disable-completion on'
bind 'set bell-style none'
set +o history
set +H
unset HISTFILE
export PAGER=cat GIT_PAGER=cat MANPAGER=cat PYTHONDONTWRITEBYTECODE=1 PS2=''
export PROMPT_COMMAND='export PS1="@PROMPT@"'
