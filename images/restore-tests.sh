# Part of eval.sh and test.sh: whatever steers the tests is again as in the base commit, whoever changed it.
git config --global --add safe.directory /testbed
steering=(':(glob)**/conftest.py' ':(glob)**/pytest.ini' ':(glob)**/.pytest.ini' ':(glob)**/pytest.toml'
  ':(glob)**/.pytest.toml' ':(glob)**/tox.ini' ':(glob)**/.coveragerc' ':(glob)**/sitecustomize.py'
  ':(glob)**/usercustomize.py' ':(glob)**/*.pth' ':(glob)**/test_*.py' ':(glob)**/*_test.py' @PROTECTED@)
git ls-files -z --others -- "${steering[@]}" | xargs -0 -r rm -f --
git diff -z --name-only HEAD -- "${steering[@]}" | git checkout -q HEAD --pathspec-from-file=- --pathspec-file-nul
