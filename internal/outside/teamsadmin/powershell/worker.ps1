# Runs cmdlets of the MicrosoftTeams module for Tandem. Protocol 1: see doc.go, which is its contract.
# What is done when, and what errors mean, is decided in Go: keep this script small.
Set-StrictMode -Version 3.0
$global:ErrorActionPreference = 'Stop'
$global:ProgressPreference = 'SilentlyContinue'
$global:ConfirmPreference = 'None'

$utf8 = [System.Text.UTF8Encoding]::new($false)
$reader = [System.IO.StreamReader]::new([Console]::OpenStandardInput(), $utf8)
$writer = [System.IO.StreamWriter]::new([Console]::OpenStandardOutput(), $utf8)
$writer.AutoFlush = $true
[Console]::SetOut([Console]::Error) # what cmdlets print is no answer

$objects = 'TenantDialPlan|OnlinePSTNGateway|OnlineVoiceRoute|OnlineVoiceRoutingPolicy|CallingLineIdentity|' +
    'TeamsEmergencyCallRoutingPolicy'
$allowed = "^((Get|New|Set|Remove|Grant)-Cs($objects)|(Get|Set)-CsOnlinePstnUsage|" +
    '(Get|Set|Remove)-CsPhoneNumberAssignment|' +
    'New-Cs(VoiceNormalizationRule|TeamsEmergencyNumber)|' +
    'Get-Cs(Tenant|OnlineUser|OnlineSipDomain|GroupPolicyAssignment)|' +
    'New-CsOnlineApplicationInstance|Connect-MicrosoftTeams)$'

function Send-Answer([System.Collections.IDictionary] $answer) {
    $writer.WriteLine((ConvertTo-Json -InputObject $answer -Compress -Depth 8 -EnumsAsStrings 3>$null))
}

function Resolve-Value($value) {
    if ($value -is [array]) {
        return , @(foreach ($item in $value) { Resolve-Value $item })
    }
    if ($value -isnot [System.Collections.IDictionary]) {
        return $value
    }
    if ($value.Contains('$cmdlet')) {
        $parameters = @{}
        foreach ($name in $value.Keys) {
            if ($name -ne '$cmdlet') { $parameters[$name] = $value[$name] }
        }
        return Invoke-Cmdlet $value['$cmdlet'] $parameters |
            Where-Object { $_ -isnot [System.Management.Automation.WarningRecord] }
    }
    return $value # such as @{ Add = … }
}

function Invoke-Cmdlet([string] $cmdlet, [System.Collections.IDictionary] $parameters) {
    if ($cmdlet -cnotmatch $allowed) { throw "The cmdlet '$cmdlet' is not one of those that Tandem uses." }
    $values = @{ ErrorAction = 'Stop' }
    foreach ($name in $parameters.Keys) { $values[$name] = Resolve-Value $parameters[$name] }
    & $cmdlet @values 3>&1 4>$null 5>$null 6>$null
}

while ($null -ne ($line = $reader.ReadLine())) {
    $id = 0
    try {
        $request = ConvertFrom-Json -InputObject $line -AsHashtable
        $id = $request['id']
        if ($request.Contains('protocol')) {
            $module = Import-Module -Name $request['module'] -DisableNameChecking -PassThru 3>$null
            Send-Answer @{ id = $id; done = $true; protocol = 1; version = [string] $module.Version }
            continue
        }
        $select = $request['select']
        $warnings = [System.Collections.Generic.List[string]]::new()
        Invoke-Cmdlet $request['cmdlet'] $request['parameters'] | ForEach-Object {
            if ($_ -is [System.Management.Automation.WarningRecord]) {
                $warnings.Add($_.Message)
            } elseif ($select) {
                Send-Answer @{ id = $id; item = ($_ | Select-Object -Property $select) }
            }
        }
        Send-Answer @{ id = $id; done = $true; warnings = $warnings }
    } catch {
        Send-Answer @{ id = $id; error = @{ text = $_.Exception.Message; code = $_.FullyQualifiedErrorId } }
    }
}
