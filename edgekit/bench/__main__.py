from edgekit.bench.agent import main

main()
