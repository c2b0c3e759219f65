#!/bin/sh
# Makes the folder of compose.yaml's secrets: sh images/make-secrets.sh FOLDER. What is there stays as it is. The services'
# group, 1000, may read it, nobody else but its owner.
set -eu
folder=${1:?the folder}
umask 027
mkdir -p "$folder"
for name in database_password launcher_token; do
  [ -s "$folder/$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/$name"
done
for name in github_token model_api_key aws_credentials; do
  [ -e "$folder/$name" ] || : >"$folder/$name"
done
chgrp -R 1000 "$folder" 2>/dev/null || sudo chgrp -R 1000 "$folder"
