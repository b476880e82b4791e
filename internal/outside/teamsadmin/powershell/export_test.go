package powershell

// CheckAlways has w ask before each change which tenant it reaches. Call it before the first command.
func (w *Worker) CheckAlways() { w.checkEvery = 0 }
