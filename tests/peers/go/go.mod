module switchgate.test/peers

go 1.23
